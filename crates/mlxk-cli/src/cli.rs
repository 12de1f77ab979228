//! The command line: global flags, and which command was asked for.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser};
use mlx_lm::core::{Dtype, QuantMode, Quantization};
use mlx_lm::generate::KvQuantization;

use crate::commands::Command;
use crate::error::{CommandError, EXIT_CODES, Kind};
use crate::output::Output;

/// Run, inspect and measure language models on MLX
#[derive(Parser)]
#[command(name = "mlxk", disable_version_flag = true, infer_long_args = true)]
#[command(max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Print one JSON object on stdout, for errors too
    #[arg(long, global = true, display_order = 1000)]
    json: bool,

    /// Tell by the exit code what is wrong, also where the command itself went well
    #[arg(long, global = true, display_order = 1002)]
    pub(crate) strict_exit: bool,

    /// Compute on this many threads where the device is a CPU [default: one for each core]
    #[arg(long, global = true, value_name = "N", display_order = 1001)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// Print the version
    #[arg(short = 'V', long)]
    pub(crate) version: bool,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Cli {
    /// Returns the name that the JSON envelope gives the command.
    pub(crate) fn command_name(&self) -> Option<&'static str> {
        match &self.command {
            Some(command) => Some(command.name()),
            None => self.version.then_some("version"),
        }
    }
}

/// The element type in which a model computes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Precision {
    Float32,
    Float16,
    Bfloat16,
}

impl From<Precision> for Dtype {
    fn from(precision: Precision) -> Dtype {
        match precision {
            Precision::Float32 => Dtype::Float32,
            Precision::Float16 => Dtype::Float16,
            Precision::Bfloat16 => Dtype::Bfloat16,
        }
    }
}

/// How caches keep keys and values.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct KvArgs {
    /// Keep keys and values in this many bits: 2, 3, 4, 5, 6 or 8
    #[arg(long, value_name = "N", value_parser = one_of(&[2, 3, 4, 5, 6, 8]))]
    kv_bits: Option<i32>,

    /// How many of them share a scale: 32, 64 or 128
    #[arg(long, value_name = "N", value_parser = one_of(&[32, 64, 128]))]
    #[arg(default_value_t = 64, requires = "kv_bits")]
    kv_group_size: i32,

    /// Tokens up to which they are kept as they are
    #[arg(long, value_name = "N", default_value_t = KvQuantization::START, requires = "kv_bits")]
    quantized_kv_start: usize,
}

impl From<KvArgs> for Option<KvQuantization> {
    fn from(args: KvArgs) -> Option<KvQuantization> {
        let KvArgs { kv_bits, kv_group_size: group_size, quantized_kv_start: start } = args;
        let format = |bits| Quantization { bits, group_size, mode: QuantMode::Affine };
        kv_bits.map(|bits| KvQuantization { format: format(bits), start })
    }
}

/// Returns a parser that takes these numbers and no others.
fn one_of(numbers: &'static [i32]) -> impl Fn(&str) -> Result<i32, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| numbers.contains(number));
        number.ok_or_else(|| {
            let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
            format!("it is none of {}", numbers.join(", "))
        })
    }
}

/// Returns the command line's grammar, for the man page and the completions.
pub(crate) fn grammar() -> clap::Command {
    Cli::command()
}

/// Whether `--json` is anywhere among the arguments, be they valid or not.
pub(crate) fn wants_json(args: &[OsString]) -> bool {
    args.iter().skip(1).take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// Reads the command line.
pub(crate) fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(args)
}

/// Prints the help that was asked for, or what is wrong with the command line.
pub(crate) fn report(error: &clap::Error, output: &Output) -> ExitCode {
    if !error.use_stderr() {
        // Nothing can be done about a closed stdout.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if !output.is_json() {
        let _ = error.print();
        return ExitCode::from(Kind::Usage.exit_code(false));
    }
    output.failure(None, &usage_error(error))
}

/// Takes an error of the parser apart into text and hints.
fn usage_error(error: &clap::Error) -> CommandError {
    let rendered = error.render().to_string();
    let text = rendered.split("\n\n").next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text).trim();
    let tips = error.context().filter(|(kind, _)| *kind == ContextKind::Suggested);
    let tips = tips.filter_map(|(_, value)| match value {
        ContextValue::StyledStrs(tips) => Some(tips),
        _ => None,
    });
    let usage = CommandError::usage(text);
    let usage = tips.flatten().fold(usage, |usage, tip| usage.hint(tip.to_string()));
    usage.hint("`mlxk --help` lists the commands and flags")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar_is_consistent() {
        grammar().debug_assert();
    }

    #[test]
    fn json_is_seen_anywhere_but_behind_two_hyphens() {
        let cases = [
            (vec!["mlxk", "--json", "run"], true),
            (vec!["mlxk", "run", "--nonsense", "--json"], true),
            (vec!["mlxk", "run", "demo", "--", "--json"], false),
            (vec!["--json"], false),
        ];
        for (args, expected) in cases {
            let args: Vec<OsString> = args.into_iter().map(OsString::from).collect();
            assert_eq!(wants_json(&args), expected, "{args:?}");
        }
    }
}
