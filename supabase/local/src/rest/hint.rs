//! "Perhaps you meant": the nearest of several names.

/// The name most like `word`, if its likeness (1 is equal, 0 has nothing in common) reaches `least`.
pub(super) fn closest<'a>(
    names: impl IntoIterator<Item = &'a str>,
    word: &str,
    least: f64,
) -> Option<String> {
    let scored = names.into_iter().map(|name| (likeness(name, word), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= least).then(|| best.1.to_owned())
}

/// One minus the edit distance relative to the longer word.
#[allow(clippy::cast_precision_loss, reason = "names are short")]
fn likeness(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let longer = a.len().max(b.len());
    if longer == 0 {
        return 1.0;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    1.0 - row[b.len()] as f64 / longer as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        assert_eq!(closest(["todos", "items"], "todoz", 0.75).as_deref(), Some("todos"));
        assert_eq!(closest(["todos", "items"], "nope", 0.75), None);
        assert_eq!(closest([], "nope", 0.0), None);
    }
}
