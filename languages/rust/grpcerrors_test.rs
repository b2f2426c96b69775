//! What the vectors do not show of grpcerrors.rs: `rustc --edition 2021 --test grpcerrors_test.rs`.

mod grpcerrors;

use grpcerrors::*;

fn classified(error: &Error) -> Verdict {
    let mut trailers = vec![(DETAILS_KEY, &error.details[..])];
    trailers.extend(error.unexecuted.map(|reason| (UNEXECUTED_KEY, reason.as_bytes())));
    classify(error.code, &error.message, trailers)
}

fn words(code: i32, message: &str) -> Verdict {
    classify(code, message, [])
}

#[test]
fn each_constructor_builds_its_condition() {
    for (error, reason) in [
        (model_not_loaded("b", "m"), MODEL_NOT_LOADED),
        (model_mismatch("b", "m", "n"), MODEL_MISMATCH),
        (model_loading("b", "", 1.0), MODEL_LOADING),
        (live_transcription_unsupported("b", "offline"), LIVE_TRANSCRIPTION_UNSUPPORTED),
        (stream_transcription_unsupported("b", "offline"), STREAM_TRANSCRIPTION_UNSUPPORTED),
    ] {
        let verdict = classified(&error);
        assert!(verdict.is(reason) && !verdict.is("MODEL_GONE"), "{:?}", verdict);
        assert!(verdict.typed() && verdict.unexecuted);
        assert_eq!(verdict.field("backend"), "b");
    }
}

#[test]
fn a_request_that_had_begun_is_not_unexecuted() {
    let verdict = classified(&model_not_loaded_started("b", "m"));
    assert!(verdict.is(MODEL_NOT_LOADED) && verdict.started() && !verdict.unexecuted);
    assert_eq!(verdict.field("model"), "m");
}

#[test]
fn the_delay_is_within_limits() {
    for (given, sent) in
        [(2.5, 2.5), (-1.0, 0.0), (f64::NAN, 0.0), (f64::INFINITY, 315_576_000_000.0)]
    {
        let verdict = classified(&model_loading("b", "", given));
        assert_eq!(verdict.retry_after, Some(sent));
    }
}

#[test]
fn words_name_the_backend() {
    assert_eq!(words(2, "vad: model not loaded").field("backend"), "vad");
    assert_eq!(words(2, "model not loaded").field("backend"), "");
    let mismatch = r#"vllm: model identity mismatch: loaded "a", requested "b""#;
    assert_eq!(words(5, mismatch).field("backend"), "vllm");
}

#[test]
fn the_held_model_fits() {
    for (model, value) in [
        ("", "1".to_owned()),
        ("tiny.en", "tiny.en".to_owned()),
        ("a b%", "a%20b%25".to_owned()),
        (&"a".repeat(999), "a".repeat(255)),
        (&"語".repeat(99), "%E8%AA%9E".repeat(28)),
        (&("a".repeat(200) + &"語".repeat(9)), "a".repeat(200) + &"%E8%AA%9E".repeat(6)),
    ] {
        assert_eq!(held(model), value);
        let verdict = classify(2, "x: model not loaded", [(HELD_KEY, value.as_bytes())]);
        assert_eq!(verdict.reason, None);
        assert!(model.is_empty() || model.starts_with(&verdict.held.unwrap()));
    }
}

#[test]
fn a_long_message_is_read_to_its_limit() {
    let said = "x: model not loaded";
    let spaces = " ".repeat(16_384 - said.len());
    assert!(words(2, &format!("{}{}", spaces, said)).is(MODEL_NOT_LOADED));
    assert_eq!(words(2, &format!(" {}{}", spaces, said)).reason, None);
    assert_eq!(words(2, &"model a-".repeat(1 << 14)).reason, None);
}
