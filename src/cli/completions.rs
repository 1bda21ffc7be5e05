//! `corelog completions`: what makes the TAB key work.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog completions bash > ~/.local/share/bash-completion/completions/corelog
  corelog completions zsh  > \"${fpath[1]}/_corelog\"
  corelog completions fish > ~/.config/fish/completions/corelog.fish")]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "corelog", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
