//! Prints the lines of vectors.tsv with the answers of grpcerrors.rs in them. Nothing may differ:
//!
//!     rustc --edition 2021 vectors.rs && ./vectors vectors.tsv | diff vectors.tsv -

mod grpcerrors;

use grpcerrors::{classify, Error, Evidence};

type Pair = (String, String);

const ESCAPES: [(char, &str); 5] =
    [('\\', "\\\\"), ('\t', "\\t"), ('\n', "\\n"), ('\r', "\\r"), ('\0', "\\0")];

fn escaped(cell: &str) -> String {
    cell.chars()
        .map(|c| match ESCAPES.iter().find(|(plain, _)| *plain == c) {
            Some((_, escape)) => (*escape).to_owned(),
            None => c.to_string(),
        })
        .collect()
}

fn unescaped(cell: &str) -> String {
    let mut result = String::new();
    let mut rest = cell;
    while let Some(c) = rest.chars().next() {
        let escape = ESCAPES.iter().find(|(_, escape)| rest.starts_with(escape));
        result.push(escape.map_or(c, |(plain, _)| *plain));
        rest = &rest[escape.map_or(c.len_utf8(), |(_, escape)| escape.len())..];
    }
    result
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{:02x}", byte)).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// Takes a count and as many pairs from the beginning of cells.
fn take(cells: &mut &[String]) -> Vec<Pair> {
    let count: usize = cells[0].parse().unwrap();
    let (taken, rest) = cells[1..].split_at(2 * count);
    *cells = rest;
    taken.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

fn put(cells: &mut Vec<String>, pairs: Vec<Pair>) {
    cells.push(pairs.len().to_string());
    cells.extend(pairs.into_iter().flat_map(|(name, value)| [name, value]));
}

fn build(cells: &[String]) -> Vec<String> {
    let mut rest = &cells[7..];
    take(&mut rest); // the trailers
    let fields = take(&mut rest);
    let given: Vec<_> = fields.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let Error { code, message, details, unexecuted } =
        grpcerrors::make(&cells[2], &given, cells[3] == "1", cells[4].parse().ok());
    let mut trailers = vec![(grpcerrors::DETAILS_KEY.to_owned(), hex(&details))];
    trailers.extend(unexecuted.map(|why| (grpcerrors::UNEXECUTED_KEY.to_owned(), why.to_owned())));
    let mut answer = cells[..5].to_vec();
    answer.extend([code.to_string(), message]);
    put(&mut answer, trailers);
    put(&mut answer, fields);
    answer
}

fn detect(cells: &[String]) -> Vec<String> {
    let given = take(&mut &cells[9..]);
    let bytes = |(name, value): &Pair| match name.ends_with("-bin") {
        true => unhex(value),
        false => value.clone().into_bytes(),
    };
    let values: Vec<_> = given.iter().map(bytes).collect();
    let trailers = given.iter().zip(&values).map(|((name, _), value)| (&name[..], &value[..]));
    let code: Option<i32> = cells[2].parse().ok();
    let verdict = classify(code, &cells[3], trailers);
    let evidence = match verdict.evidence {
        Some(Evidence::Details) => "details",
        Some(Evidence::Trailer) => "trailer",
        Some(Evidence::Text) => "text",
        Some(Evidence::Code) => "code",
        None => "",
    };
    let mut answer = cells[..4].to_vec();
    answer.extend([
        verdict.reason.unwrap_or("").to_owned(),
        evidence.to_owned(),
        i32::from(verdict.unexecuted).to_string(),
        verdict.retry_after.map_or(String::new(), |seconds| seconds.to_string()),
        verdict.held.unwrap_or_default(),
    ]);
    put(&mut answer, given);
    answer
}

fn main() {
    let path = std::env::args().nth(1).expect("the path of vectors.tsv");
    for line in std::fs::read_to_string(path).expect("a readable file").lines() {
        let cells: Vec<String> = line.split('\t').map(unescaped).collect();
        let answer = match &cells[0][..] {
            "build" => build(&cells),
            "detect" => detect(&cells),
            _ => cells,
        };
        println!("{}", answer.iter().map(|cell| escaped(cell)).collect::<Vec<_>>().join("\t"));
    }
}
