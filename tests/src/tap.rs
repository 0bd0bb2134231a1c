//! What pgTAP prints, read: rows such as `ok 1 - …` and `not ok 2 - …`.

/// The outcome of one file of tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tap {
    /// How many tests there should be.
    pub planned: Option<usize>,
    /// How many there were.
    pub run: usize,
    /// Those that failed, each with the lines that explain it.
    pub failures: Vec<String>,
}

impl Tap {
    /// Reads rows; those that are no TAP are left out.
    pub fn read<'a>(rows: impl IntoIterator<Item = &'a str>) -> Self {
        let mut tap = Self::default();
        let mut explains = false;
        for line in rows.into_iter().flat_map(str::lines) {
            if let Some(planned) = line.strip_prefix("1..") {
                tap.planned = planned.trim().parse().ok();
            } else if is_result(line, "ok ") {
                tap.run += 1;
                explains = false;
            } else if is_result(line, "not ok ") {
                tap.run += 1;
                // An expected failure is none.
                explains = !line.contains("# TODO");
                if explains {
                    tap.failures.push(line.to_owned());
                }
            } else if let (true, Some(last)) = (explains && line.starts_with('#'), tap.failures.last_mut()) {
                last.push('\n');
                last.push_str(line);
            }
        }
        tap
    }

    /// Everything that is wrong, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.failures.clone();
        match self.planned {
            None => problems.push("no plan was printed".to_owned()),
            Some(planned) if planned != self.run => {
                problems.push(format!("{planned} tests were planned, {} were run", self.run));
            }
            Some(_) => {}
        }
        problems
    }
}

fn is_result(line: &str, result: &str) -> bool {
    line.strip_prefix(result).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_has_no_problems() {
        let tap = Tap::read(["", "1..2", "ok 1 - a", "NOTICE: hello", "ok 2 - b"]);
        assert_eq!((tap.run, tap.problems()), (2, Vec::new()));
    }

    #[test]
    fn a_failure_is_reported_with_its_explanation() {
        let tap = Tap::read(["1..2\nnot ok 1 - a\n# Failed test 1: \"a\"\n#   have: 1", "ok 2 - b", "# end"]);
        assert_eq!(tap.problems(), ["not ok 1 - a\n# Failed test 1: \"a\"\n#   have: 1"]);
    }

    #[test]
    fn an_expected_failure_is_no_problem() {
        assert_eq!(
            Tap::read(["1..1", "not ok 1 - a # TODO later", "# why"]).problems(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_wrong_plan_is_a_problem() {
        assert_eq!(Tap::read(["1..3", "ok 1"]).problems(), ["3 tests were planned, 1 were run"]);
        assert_eq!(Tap::read(["ok 1"]).problems(), ["no plan was printed"]);
    }
}
