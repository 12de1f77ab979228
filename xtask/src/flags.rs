//! The command line of xtask.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Tasks of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Flags {
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Subcommand)]
pub enum Task {
    /// Install the system packages that are missing, or print the command that does
    Setup(Setup),
    /// Build native MLX, or find the build that is there
    Native(Native),
    /// Regenerate the bindings of mlx-sys
    Bindings(Bindings),
    /// Regenerate the fixtures with the pinned reference programs
    Fixtures(Fixtures),
    /// Check the house rules
    Tidy,
    /// Run the test matrix
    Test(Test),
    /// Build everything and run the bundled model
    Demo(Demo),
    /// Measure generation on this CPU, in turns with llama.cpp
    Bench(Bench),
}

#[derive(Args)]
pub struct Setup {
    /// Say what is missing and change nothing
    #[arg(long)]
    pub check: bool,
    /// Also what only a developer needs: libclang for `bindings`
    #[arg(long)]
    pub dev: bool,
}

#[derive(Args)]
pub struct Native {
    /// cpu, metal or cuda; the default is Metal on Apple silicon, else the CPU
    #[arg(long, env = "MLX_SYS_BACKEND")]
    pub backend: Option<String>,
    /// Build only mlx-c, against this installed MLX (the `mlx` directory of a Python wheel)
    #[arg(long, value_name = "DIR", env = "MLX_SYS_INSTALLED")]
    pub installed: Option<PathBuf>,
    /// Lay out the sources and stop
    #[arg(long)]
    pub sources_only: bool,
    /// Print the prefix where the build is or would be, and build nothing
    #[arg(long)]
    pub print_prefix: bool,
}

#[derive(Args)]
pub struct Bindings {
    /// Fail when the committed bindings differ, and change nothing
    #[arg(long)]
    pub check: bool,
}

#[derive(Args)]
pub struct Fixtures {
    /// Fail when the output of a generator differs from what is committed
    #[arg(long)]
    pub check: bool,
    /// A Python with the pinned reference packages; without it a scratch environment is made
    #[arg(long, value_name = "PROGRAM")]
    pub python: Option<PathBuf>,
    /// Only generators whose path contains this text
    pub filter: Option<String>,
}

#[derive(Args)]
pub struct Test {
    /// Run only this suite; may be given several times
    #[arg(long, value_name = "NAME")]
    pub suite: Vec<String>,
    /// Print the suites and what each needs
    #[arg(long)]
    pub list: bool,
}

#[derive(Args)]
pub struct Demo {
    /// Arguments for `mlxk` instead of the sample question
    #[arg(last = true)]
    pub args: Vec<String>,
}

#[derive(Args)]
pub struct Bench {
    /// What to measure
    pub subject: Subject,
    /// A program that prints llama.cpp's speeds: `PROGRAM MODEL.gguf THREADS N_PROMPT N_GENERATE`
    #[arg(long, value_name = "PROGRAM")]
    pub llama: Option<PathBuf>,
    /// Where its models are; beside the program if not given
    #[arg(long, value_name = "DIR", requires = "llama")]
    pub models: Option<PathBuf>,
    /// A Python that has mlx-lm
    #[arg(long, value_name = "PYTHON")]
    pub mlx_lm: Option<PathBuf>,
    /// What a byte of weights takes in each mode, instead of speeds beside peers
    #[arg(long, conflicts_with_all = ["llama", "mlx_lm"])]
    pub modes: bool,
    /// Shapes with experts, with latent attention and with gated delta rules, beside a dense one
    #[arg(long, conflicts_with_all = ["llama", "modes"])]
    pub shapes: bool,
    /// How often the programs take turns
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rounds: u32,
    /// Numbers of threads to try, separated by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2")]
    pub threads: Vec<u32>,
    /// The CPU's instructions that ours compute with, as `mlxk bench --isa` takes them
    #[arg(long, value_name = "NAME")]
    pub isa: Option<String>,
    /// Only models whose name contains this text
    pub filter: Option<String>,
}

impl Bench {
    /// Names what was asked for that has nothing to do with lists.
    pub fn only_for_models(&self) -> Option<&'static str> {
        let asked = [
            (self.llama.is_some(), "--llama"),
            (self.mlx_lm.is_some(), "--mlx-lm"),
            (self.modes, "--modes"),
            (self.shapes, "--shapes"),
            (self.threads != [1, 2], "--threads"),
            (self.isa.is_some(), "--isa"),
            (self.filter.is_some(), "FILTER"),
        ];
        asked.into_iter().find_map(|(is_there, name)| is_there.then_some(name))
    }
}

/// What is measured.
#[derive(Clone, Copy, ValueEnum)]
pub enum Subject {
    /// Models on this machine's CPU
    Cpu,
    /// A list of many cached models, with the health of each
    List,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_use_for_lists_is_named() {
        let name = |rest: &[&str]| {
            let words = [&["xtask", "bench", "list"], rest].concat();
            match Flags::try_parse_from(words).map(|flags| flags.task) {
                Ok(Task::Bench(bench)) => bench.only_for_models(),
                _ => panic!("{rest:?}"),
            }
        };
        assert_eq!(name(&["--rounds", "3"]), None);
        assert_eq!(name(&["--llama", "x"]), Some("--llama"));
        assert_eq!(name(&["--threads", "4"]), Some("--threads"));
        assert_eq!(name(&["--isa", "avx2"]), Some("--isa"));
        assert_eq!(name(&["0.5B"]), Some("FILTER"));
    }
}
