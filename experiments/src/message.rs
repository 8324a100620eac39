//! Errors as a person sees them: one line, whatever a file, a library or LibTorch put into them.

/// A message is cut behind so many characters: what is quoted in it may be a whole file.
const LONGEST: usize = 2000;

/// An error with its causes, without signs that a terminal obeys and without LibTorch's list of C++ functions.
pub fn one_line(error: &anyhow::Error) -> String {
    let whole = format!("{error:#}");
    let plain = whole.split("Exception raised from").next().unwrap_or_default();
    let lines: Vec<&str> = plain.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let unseen = |c: char| c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c);
    let line = lines.join(" ").replace(unseen, "\u{fffd}");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ..", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;
    use anyhow::anyhow;

    #[test]
    fn one_line_whatever_is_in_it() {
        let of = |text: &str| one_line(&anyhow!("{text}"));
        assert_eq!(of("a\nb\r\n\n c\u{1b}[31m\0"), "a b c\u{fffd}[31m\u{fffd}");
        assert_eq!(of("a\n  b\u{2028}c"), "a b\u{fffd}c");
        assert_eq!(of("bad shape\nException raised from x at y\nframe #0: z"), "bad shape");
        assert_eq!(of(&"é".repeat(9000)).chars().count(), 2003);
        assert_eq!(one_line(&anyhow!("why").context("what")), "what: why");
    }
}
