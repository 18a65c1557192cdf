//! The steps of a check, chosen by name and run one after the other.

use mpage_locks::clock;

use crate::failure::Failure;

/// One step; `R` says what its run is.
pub(crate) struct Step<R: 'static> {
    /// What it is called in arguments and reports.
    pub(crate) name: &'static str,
    /// Does it, and tells in a line what it saw.
    pub(crate) run: fn(&R) -> Result<String, Failure>,
}

/// The step of `steps` that is called `name`.
pub(crate) fn named<R>(steps: &'static [Step<R>], name: &str) -> Result<&'static Step<R>, Failure> {
    let found = steps.iter().find(|step| step.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = steps.iter().map(|step| step.name).collect();
        Failure::new(format!("no step is {name}: there are {}", names.join(", ")))
    })
}

/// Runs the `chosen` ones of `steps`, all where none is, and prints for `task` what each saw.
///
/// # Errors
///
/// The first failure, with the name of its step.
pub(crate) fn run<R>(
    task: &str,
    run: &R,
    steps: &'static [Step<R>],
    chosen: &[&'static Step<R>],
) -> Result<(), Failure> {
    let all: Vec<&Step<R>> = steps.iter().collect();
    let start_ns = clock::now_ns();
    for step in if chosen.is_empty() { &all } else { chosen } {
        let step_ns = clock::now_ns();
        let saw = (step.run)(run);
        let time_ms = (clock::now_ns() - step_ns) / 1_000_000;
        let time = format!("{}.{} s", time_ms / 1000, time_ms / 100 % 10);
        match saw {
            Ok(saw) => println!("{task}: {:<13} {time:>8}  {saw}", step.name),
            Err(failure) => return Err(Failure::new(format!("{}: {failure}", step.name))),
        }
    }
    println!("{task}: all passed in {} s", (clock::now_ns() - start_ns) / 1_000_000_000);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: &[Step<bool>] = &[
        Step { name: "right", run: |_| Ok("all is well".to_owned()) },
        Step {
            name: "choosy",
            run: |good| good.then(String::new).ok_or_else(|| Failure::new("it broke")),
        },
    ];

    #[test]
    fn a_step_that_fails_is_named() {
        assert!(run("task", &true, STEPS, &[]).is_ok());
        let failure = run("task", &false, STEPS, &[]).expect_err("a step fails");
        assert_eq!(failure.to_string(), "choosy: it broke");
    }

    #[test]
    fn only_chosen_steps_run() {
        let right = named(STEPS, "right").expect("it is there");
        assert!(run("task", &false, STEPS, &[right]).is_ok());
        let failure = named(STEPS, "left").err().expect("there is none");
        assert_eq!(failure.to_string(), "no step is left: there are right, choosy");
    }
}
