//! What a suite found, as JSON, for machines to compare: of each model whether it passed, how fast it
//! was, and which stop tokens it has.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

/// Changes when a field is taken away or means something else.
const SCHEMA_VERSION: &str = "1";

#[derive(Serialize)]
pub struct Report {
    schema_version: &'static str,
    pub suite: &'static str,
    /// When the suite began, in seconds since 1970.
    unix_seconds: u64,
    pub mlxk_version: String,
    pub system: System,
    pub rows: Vec<Row>,
}

#[derive(Serialize)]
pub struct System {
    pub platform: &'static str,
    pub architecture: &'static str,
    pub memory_total_bytes: u64,
    pub budget_bytes: u64,
    pub cache: PathBuf,
}

/// What became of a model, or of what is not about one model.
#[derive(Default, Serialize)]
pub struct Row {
    pub name: String,
    pub size_bytes: u64,
    pub outcome: Outcome,
    /// Why it was skipped, or what failed.
    pub reasons: Vec<String>,
    pub seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub performance: Option<Performance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_tokens: Option<StopTokenFindings>,
    /// What is worth knowing and no failure.
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    #[default]
    Passed,
    Failed,
    Skipped,
}

/// Figures of one answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Performance {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub load_seconds: f64,
    pub time_to_first_token_seconds: f64,
    pub prompt_tokens_per_second: Option<f64>,
    pub tokens_per_second: Option<f64>,
    pub peak_memory_bytes: u64,
}

/// Tokens that end an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StopTokenFindings {
    /// Those that the model's files name, with their texts.
    pub configured: Vec<StopToken>,
    /// What ends turns in other models, is in this vocabulary, and is not named.
    pub unnamed: Vec<String>,
    /// Texts of such tokens that were shown.
    pub leaked: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StopToken {
    pub id: u32,
    /// None of a token that is no special one.
    pub text: Option<String>,
}

impl Performance {
    /// Reads `data` of `mlxk run --json`.
    pub fn read(data: &Value) -> Result<Performance> {
        let (usage, timings) = (&data["usage"], &data["timings"]);
        let count = |value: &Value| value.as_u64().context("a figure is missing");
        let seconds = |value: &Value| value.as_f64().context("a time is missing");
        Ok(Performance {
            prompt_tokens: count(&usage["prompt_tokens"])?,
            completion_tokens: count(&usage["completion_tokens"])?,
            load_seconds: seconds(&timings["load_seconds"])?,
            time_to_first_token_seconds: seconds(&timings["time_to_first_token_seconds"])?,
            prompt_tokens_per_second: timings["prompt_tokens_per_second"].as_f64(),
            tokens_per_second: timings["generation_tokens_per_second"].as_f64(),
            peak_memory_bytes: count(&data["peak_memory_bytes"])?,
        })
    }

    fn line(&self) -> String {
        let speed = self.tokens_per_second.map_or("-".to_owned(), |speed| format!("{speed:.1}"));
        format!(
            "load {:.2} s, first token {:.2} s, {speed} tokens/s",
            self.load_seconds, self.time_to_first_token_seconds
        )
    }
}

impl Row {
    /// What a person reads of it.
    pub fn line(&self) -> String {
        let outcome = match self.outcome {
            Outcome::Passed => "ok     ",
            Outcome::Failed => "FAILED ",
            Outcome::Skipped => "skipped",
        };
        let mut text = format!("{outcome} {} ({:.1} s)", self.name, self.seconds);
        if let Some(performance) = &self.performance {
            text += &format!(": {}", performance.line());
        }
        for line in self.reasons.iter().chain(&self.notes) {
            text += &format!("\n        {line}");
        }
        text
    }
}

impl Report {
    pub fn new(suite: &'static str, mlxk_version: String, system: System) -> Report {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let unix_seconds = now.map_or(0, |time| time.as_secs());
        let rows = Vec::new();
        Report { schema_version: SCHEMA_VERSION, suite, unix_seconds, mlxk_version, system, rows }
    }

    pub fn with(&self, outcome: Outcome) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.outcome == outcome)
    }

    /// Writes it beside those of the other suites.
    pub fn write(&self, dir: &Path) -> Result<PathBuf> {
        fs::create_dir_all(dir)?;
        let name = self.suite.strip_prefix("live-").unwrap_or(self.suite);
        let path = dir.join(format!("live-{name}.json"));
        fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_has_a_row_for_each_model() {
        let data = json!({
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
            "timings": {"load_seconds": 0.5, "time_to_first_token_seconds": 0.25,
                "prompt_tokens_per_second": null, "generation_tokens_per_second": 12.5},
            "peak_memory_bytes": 99,
        });
        let performance = Performance::read(&data).unwrap();
        assert_eq!(performance.line(), "load 0.50 s, first token 0.25 s, 12.5 tokens/s");
        assert!(Performance::read(&json!({})).is_err());
        let system = System {
            platform: "linux",
            architecture: "x86_64",
            memory_total_bytes: 8,
            budget_bytes: 4,
            cache: "/hub".into(),
        };
        let mut report = Report::new("live-run", "1.2.3".to_owned(), system);
        report.rows.push(Row {
            name: "a".into(),
            performance: Some(performance),
            ..Row::default()
        });
        let reasons = vec!["too large".to_owned()];
        let skipped =
            Row { name: "b".into(), outcome: Outcome::Skipped, reasons, ..Row::default() };
        assert_eq!(skipped.line(), "skipped b (0.0 s)\n        too large");
        report.rows.push(skipped);
        let dir = tempfile::tempdir().unwrap();
        let path = report.write(&dir.path().join("reports")).unwrap();
        assert_eq!(path.file_name().unwrap(), "live-run.json");
        let read: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(read["rows"][0]["performance"]["tokens_per_second"], 12.5);
        assert_eq!(read["rows"][0]["outcome"], "passed");
        assert_eq!(read["rows"][1]["reasons"], json!(["too large"]));
        assert_eq!(report.with(Outcome::Skipped).count(), 1);
    }
}
