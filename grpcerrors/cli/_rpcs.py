"""The RPCs of LocalAI's backend protocol (August 2026) that need a loaded model."""

from __future__ import annotations

from grpcerrors._guard.methods import CONTROL_PLANE

INFERENCE = frozenset(
    {
        "AudioDecode",
        "AudioEncode",
        "AudioToAudioStream",
        "AudioTranscription",
        "AudioTranscriptionLive",
        "AudioTranscriptionStream",
        "AudioTransform",
        "AudioTransformStream",
        "Depth",
        "Detect",
        "Detokenize",
        "Diarize",
        "Embedding",
        "FaceAnalyze",
        "FaceVerify",
        "Forward",
        "Generate3D",
        "GenerateImage",
        "GenerateVideo",
        "Predict",
        "PredictStream",
        "Rerank",
        "Score",
        "SoundDetection",
        "SoundGeneration",
        "TTS",
        "TTSStream",
        "TokenClassify",
        "TokenizeString",
        "UpscaleImage",
        "VAD",
        "VoiceAnalyze",
        "VoiceEmbed",
        "VoiceVerify",
    }
)


def needs_model(rpc: str) -> bool:
    """Whether an RPC of a backend is inference: every one that is not control plane."""
    return rpc not in CONTROL_PLANE
