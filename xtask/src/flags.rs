//! The command line of xtask.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
