//! What others wrote, a file or a library, as part of a message.

use std::fmt::Display;

/// A message holds no more of what it quotes.
const LONGEST: usize = 200;

/// On one line, without signs that a terminal obeys, cut where it is long.
pub(crate) fn plain(text: impl Display) -> String {
    plain_up_to(LONGEST, text)
}

/// A word of a file, of which 40 characters tell enough.
pub(crate) fn word(text: &str) -> String {
    plain_up_to(40, text)
}

fn plain_up_to(longest: usize, text: impl Display) -> String {
    let text = text.to_string();
    let mut characters = text.trim().chars();
    let shown: String = characters.by_ref().take(longest).collect();
    let shown = shown.split(['\n', '\r', '\t']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let unseen = |c: char| c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c);
    let shown: String = shown.chars().map(|c| if unseen(c) { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if characters.next().is_some() { shown + " .." } else { shown }
}

#[cfg(test)]
mod tests {
    use super::{plain, word};

    #[test]
    fn what_is_quoted_stays_on_its_line_and_short() {
        assert_eq!(plain("a\nb\r\n\tc\u{1b}[31m\0\n"), "a b c\u{fffd}[31m\u{fffd}");
        assert_eq!(word(&"x".repeat(1000)), "x".repeat(40) + " ..");
    }
}
