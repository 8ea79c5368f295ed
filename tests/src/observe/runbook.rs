//! The runbook: a section for each alert, which begins with what the operator sees, and what to type.

use std::collections::BTreeMap;

/// The page, as alerts name it: a path in the repository, and the alert's name in small letters.
pub const PAGE: &str = "docs/runbook.md";

/// The sections of the page by their titles.
pub fn sections(page: &str) -> BTreeMap<&str, &str> {
    let sections = page.split("\n## ").skip(1);
    sections.map(|section| section.split_once('\n').unwrap_or((section, ""))).collect()
}

/// What is wrong with a section: its parts have to be there, in this order.
pub fn findings(title: &str, section: &str) -> Vec<String> {
    let mut found = Vec::new();
    let text = section.trim_start();
    if !text.starts_with("**You see** ") {
        found.push(format!("{title}: it does not begin with what the operator sees"));
    }
    match (text.find("**Type**"), text.find("**It means**"), text.find("**Do** ")) {
        (Some(types), Some(means), Some(does)) if types < means && means < does => {
            if commands(&text[types..means]).is_empty() {
                found.push(format!("{title}: there is nothing to type"));
            }
        }
        _ => found.push(format!("{title}: it has to say what to type, what it means, and what to do")),
    }
    found
}

/// The lines of a text that are to be typed.
pub fn commands(text: &str) -> Vec<&str> {
    let blocks = text.split("```").skip(1).step_by(2);
    blocks
        .flat_map(str::lines)
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// The words of a line up to its comment.
pub fn words(line: &str) -> Vec<&str> {
    let line = line.split(" #").next().unwrap_or_default();
    line.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_that_lacks_something_is_found() {
        let right = "\n**You see** smoke.\n\n**Type**\n\n```\nmetactl status   # all\n```\n\n**It means** fire.\n\n**Do** run.\n";
        assert_eq!(findings("A", right), Vec::<String>::new());
        assert_eq!(commands(right), ["metactl status   # all"]);
        assert_eq!(words(commands(right)[0]), ["metactl", "status"]);
        assert!(findings("A", &right.replace("metactl status   # all", ""))[0].contains("nothing to type"));
        assert!(findings("A", &right.replace("**Do**", "Do"))[0].contains("what to do"));
        assert!(findings("A", "Look.").len() == 2);
        let page = format!("# Runbook\n\n## One\n{right}\n## Two\nx\n");
        assert_eq!(sections(&page).keys().copied().collect::<Vec<_>>(), ["One", "Two"]);
    }
}
