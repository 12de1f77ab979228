//! The `preprocessor_config.json` of a Whisper model.
//!
//! All of its settings are constants of the architecture but for the number of mel bands, which
//! `config.json` has. The values are those that `WhisperFeatureExtractor` of transformers has by
//! default and that the published models state: 16 kHz, 30 seconds, windows of 25 ms every 10 ms.

use serde_json::json;

use super::Plan;
use crate::error::{CommandError, Kind};

const NAME: &str = "preprocessor_config.json";
const SAMPLING_RATE: u64 = 16_000;
const CHUNK_SECONDS: u64 = 30;
const HOP_LENGTH: u64 = 160;

/// Mel bands of all models but the third large one's, which state theirs.
const MEL_BANDS: u64 = 80;

pub(super) fn plan(plan: &mut Plan) -> Result<(), CommandError> {
    if !plan.has("preprocessor_missing") {
        return Ok(());
    }
    let config = plan.object("config.json");
    let bands = ["num_mel_bins", "n_mels"].iter().find_map(|key| config[*key].as_u64());
    let n_samples = SAMPLING_RATE * CHUNK_SECONDS;
    let settings = json!({
        "chunk_length": CHUNK_SECONDS,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": bands.unwrap_or(MEL_BANDS),
        "hop_length": HOP_LENGTH,
        "n_fft": 400,
        "n_samples": n_samples,
        "nb_max_frames": n_samples / HOP_LENGTH,
        "padding_side": "right",
        "padding_value": 0.0,
        "processor_class": "WhisperProcessor",
        "return_attention_mask": false,
        "sampling_rate": SAMPLING_RATE,
    });
    let mut text =
        serde_json::to_vec_pretty(&settings).map_err(|e| CommandError::new(Kind::General, e))?;
    text.push(b'\n');
    plan.write(NAME, text);
    Ok(())
}
