//! The command `mpage`: disk images through the page cache.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use mpage_cli::args::{Cli, Command, Generated};
use mpage_cli::failure::Failure;
use mpage_cli::{mount, serve, umount};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
        .with_env_var("MPAGE_LOG")
        .from_env_lossy()
        // That a program was killed which waited for an answer is no error.
        .add_directive("fuser::reply=off".parse().expect("a fixed directive"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    let result = match cli.command {
        Command::Mount(args) => mount::run(&args),
        Command::Umount(args) => umount::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Generate { what, of } => generate(what, of),
    };
    result.unwrap_or_else(|failure| {
        eprintln!("mpage: {failure}");
        ExitCode::FAILURE
    })
}

fn generate(what: Generated, of: Option<String>) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    let shell = match what {
        Generated::Man => {
            command.build();
            let of = of.unwrap_or_else(|| "serve".into());
            let Some(found) = command.find_subcommand(&of) else {
                return Err(Failure(format!("{of}: no such command of mpage")));
            };
            let page = clap_mangen::Man::new(found.clone().version(env!("CARGO_PKG_VERSION")));
            page.render(&mut io::stdout()).map_err(|error| Failure(error.to_string()))?;
            return Ok(ExitCode::SUCCESS);
        }
        Generated::Bash => Shell::Bash,
        Generated::Fish => Shell::Fish,
        Generated::Zsh => Shell::Zsh,
    };
    clap_complete::generate(shell, &mut command, "mpage", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}
