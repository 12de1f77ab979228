//! Which models there are, and which of them a suite takes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

/// Memory sizes and the part of it that a model's files may take, in percent. What the rest is for
/// does not grow with the memory: the system, other programs, keys and values.
const BUDGET: &[(f64, f64)] = &[(16.0, 40.0), (32.0, 50.0), (64.0, 60.0), (96.0, 70.0)];

const GIB: f64 = (1_u64 << 30) as f64;

/// Returns how many percent of a memory a model may take. Between the sizes of the table it grows in
/// a line, because a machine's memory is never quite what it is sold as.
pub fn budget_percent(memory_bytes: u64) -> f64 {
    let gib = memory_bytes as f64 / GIB;
    let steps = BUDGET.windows(2).find(|step| gib < step[1].0);
    match steps {
        Some([(from, low), (to, high)]) => {
            low + (high - low) * ((gib - from) / (to - from)).max(0.0)
        }
        _ => BUDGET[BUDGET.len() - 1].1,
    }
}

/// What models may take.
#[derive(Clone, Copy)]
pub struct Budget {
    pub bytes: u64,
    memory_bytes: u64,
    /// Whether the user set it.
    is_set: bool,
}

impl Budget {
    pub fn new(memory_bytes: u64, set: Option<u64>) -> Budget {
        let usual = (memory_bytes as f64 * budget_percent(memory_bytes) / 100.0) as u64;
        Budget { bytes: set.unwrap_or(usual), memory_bytes, is_set: set.is_some() }
    }

    /// Says why a model of that size is not loaded.
    fn refuses(&self, size_bytes: u64) -> Option<String> {
        let whose = match self.is_set {
            true => "set by MLXK_TEST_BUDGET_GB".to_owned(),
            false => format!(
                "{:.0} % of {}",
                budget_percent(self.memory_bytes),
                gigabytes(self.memory_bytes)
            ),
        };
        let (size, budget) = (gigabytes(size_bytes), gigabytes(self.bytes));
        (size_bytes > self.bytes)
            .then(|| format!("its {size} are more than the budget of {budget}, {whose}"))
    }
}

pub fn gigabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A model as `mlxk list --json` describes it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Model {
    pub name: String,
    pub hash: Option<String>,
    pub size_bytes: u64,
    pub framework: String,
    pub capabilities: Vec<String>,
    pub health: String,
    pub runtime_compatible: bool,
    pub reason: Option<String>,
    pub cached: bool,
    pub clean: Option<bool>,
}

impl Model {
    /// Returns the directory of its files.
    pub fn dir(&self, cache: &Path) -> Result<PathBuf> {
        if !self.cached {
            return Ok(PathBuf::from(&self.name));
        }
        let hash = self.hash.as_deref().context("a cached model has a revision")?;
        Ok(self.cache_dir(cache).join("snapshots").join(hash))
    }

    /// Returns the directory of all its revisions.
    pub fn cache_dir(&self, cache: &Path) -> PathBuf {
        cache.join(format!("models--{}", self.name.replace('/', "--")))
    }

    pub fn is_healthy(&self) -> bool {
        self.health == "healthy"
    }

    /// Says why it is not run by the suites for text models.
    pub fn left_out(&self, budget: &Budget) -> Option<String> {
        let reason = || self.reason.as_deref().unwrap_or("no reason is given");
        if !self.is_healthy() {
            return Some(format!("unhealthy: {}", reason()));
        }
        if !self.runtime_compatible {
            return Some(format!("does not run here: {}", reason()));
        }
        if !self.capabilities.iter().any(|capability| capability == "text-generation") {
            return Some(format!("no text model: {}", self.capabilities.join(", ")));
        }
        budget.refuses(self.size_bytes)
    }
}

/// All models of a list, by size, so that what fails first fails soon.
pub struct Portfolio {
    pub models: Vec<Model>,
    pub memory_bytes: u64,
}

impl Portfolio {
    /// Reads `data` of `mlxk list --json`.
    pub fn read(data: &Value) -> Result<Portfolio> {
        let mut models: Vec<Model> = Vec::<Model>::deserialize(&data["models"])?;
        models.sort_by(|a, b| (a.size_bytes, &a.name).cmp(&(b.size_bytes, &b.name)));
        let memory = data["system"]["memory_total_bytes"].as_u64();
        Ok(Portfolio { models, memory_bytes: memory.context("the list has no memory size")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_grows_with_the_memory() {
        for (gib, percent) in [
            (1.0, 40.0),
            (8.0, 40.0),
            (16.0, 40.0),
            (24.0, 45.0),
            (32.0, 50.0),
            (64.0, 60.0),
            (80.0, 65.0),
            (96.0, 70.0),
            (512.0, 70.0),
        ] {
            assert_eq!(budget_percent((gib * GIB) as u64), percent, "{gib}");
        }
        assert_eq!(Budget::new(1 << 34, None).bytes, (1_u64 << 34) * 2 / 5);
        assert_eq!(Budget::new(1 << 34, Some(7)).bytes, 7);
    }

    #[test]
    fn models_are_left_out_with_a_reason() {
        let data = serde_json::from_str(include_str!("list.json")).unwrap();
        let portfolio = Portfolio::read(&data).unwrap();
        let budget = Budget::new(portfolio.memory_bytes, None);
        let found: Vec<(&str, String)> = portfolio
            .models
            .iter()
            .map(|model| (model.name.as_str(), model.left_out(&budget).unwrap_or_default()))
            .collect();
        let expected = [
            ("org/embeds", "no text model: embeddings"),
            ("org/broken", "unhealthy: model.safetensors: 8 bytes are missing"),
            ("mlx-community/Small-4bit", ""),
            ("org/novel", "does not run here: the model_type novel is not known"),
            ("/models/my-workspace", ""),
            ("org/Large", "its 7.0 GB are more than the budget of 6.9 GB, 40 % of 17.2 GB"),
        ];
        assert_eq!(found, expected.map(|(name, reason)| (name, reason.to_owned())));
        let set = Budget::new(portfolio.memory_bytes, Some(1_000));
        let small = portfolio.models[2].left_out(&set).unwrap();
        assert_eq!(
            small,
            "its 400.0 MB are more than the budget of 1.0 kB, set by MLXK_TEST_BUDGET_GB"
        );
    }

    #[test]
    fn files_lie_where_the_hub_puts_them() {
        let data = serde_json::from_str(include_str!("list.json")).unwrap();
        let portfolio = Portfolio::read(&data).unwrap();
        let dir = |i: usize| portfolio.models[i].dir(Path::new("/hub")).unwrap();
        let hash = "0123456789012345678901234567890123456789";
        let small = format!("/hub/models--mlx-community--Small-4bit/snapshots/{hash}");
        assert_eq!(dir(2), Path::new(&small));
        assert_eq!(dir(4), Path::new("/models/my-workspace"));
    }
}
