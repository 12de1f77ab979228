//! `mlxk perplexity`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use mlx_lm::load::LoadOptions;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::Precision;
use crate::error::{CommandError, Kind};
use crate::model;
use crate::output::Output;

/// Measure how well a model predicts a text
///
/// The text is encoded as it stands, with the special tokens that the tokenizer puts around it. One
/// longer than the context window is cut into windows of that length. Reported are the mean
/// negative log-likelihood of the tokens but each window's first (`nll`) and its exponential
/// (`perplexity`).
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model: a name in the cache or a part of one, a directory, or `demo`
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    model: PathBuf,

    /// The text to predict; `-` reads stdin
    #[arg(long, value_name = "TEXT", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,

    /// Compute in this element type instead of the model's own
    #[arg(long, value_enum)]
    dtype: Option<Precision>,

    /// Report the log-probability of every token
    #[arg(long)]
    token_logprobs: bool,
}

/// `data` of the envelope.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "perplexity")]
pub(crate) struct Data<'a> {
    model: String,
    file: String,
    dtype: Option<&'static str>,
    tokens: usize,
    nll: f64,
    perplexity: f64,
    token_ids: &'a [u32],
    token_logprobs: Option<&'a [Option<f32>]>,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), CommandError> {
    let dtype = args.dtype.map(Into::into);
    let text = read(&args.file)?;
    let (_, loaded, _) = model::load("perplexity", &args.model, &LoadOptions { dtype }, output)?;
    let token_ids = loaded.tokenizer.encode(&text, true)?;
    if token_ids.len() < 2 {
        return Err(CommandError::usage(format!(
            "{}: a text of at least two tokens is needed, this one has {}",
            args.file.display(),
            token_ids.len()
        )));
    }
    let result = mlx_lm::perplexity::perplexity(&loaded.model, &token_ids)?;
    if output.is_json() {
        return output.success(
            "perplexity",
            &Data {
                model: args.model.display().to_string(),
                file: args.file.display().to_string(),
                dtype: dtype.map(|dtype: mlx_lm::core::Dtype| dtype.name()),
                tokens: result.token_ids.len(),
                nll: result.nll,
                perplexity: result.perplexity,
                token_ids: &result.token_ids,
                token_logprobs: args.token_logprobs.then_some(&result.token_logprobs),
            },
        );
    }
    let mut text = String::new();
    if args.token_logprobs {
        for (id, logprob) in result.token_ids.iter().zip(&result.token_logprobs) {
            let token = loaded.tokenizer.decode(&[*id], false)?;
            let logprob = logprob.map_or("-".to_owned(), |logprob| format!("{logprob:.6}"));
            let _ = writeln!(text, "{id}\t{logprob}\t{token:?}");
        }
    }
    let _ = writeln!(text, "tokens: {}", result.token_ids.len());
    let _ = writeln!(text, "nll: {:.6}", result.nll);
    let _ = writeln!(text, "perplexity: {:.4}", result.perplexity);
    output.write(&text)
}

/// Reads a text; `-` is stdin.
pub(super) fn read(file: &Path) -> Result<String, CommandError> {
    let mut bytes = Vec::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().read_to_end(&mut bytes),
        false => std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|e| CommandError::file(file, &e))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let text = format!("{}: not UTF-8 text, byte {at} is wrong", file.display());
        CommandError::new(Kind::General, text)
    })
}
