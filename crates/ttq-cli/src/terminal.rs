//! Text for a terminal: names in files may contain control characters, which could rewrite what is on the screen.

use ttq_pytorch::Escaped;

/// Escapes control characters other than line feeds.
pub(crate) fn lines(text: &str) -> String {
    text.split('\n').map(|line| Escaped(line).to_string()).collect::<Vec<_>>().join("\n")
}

/// Escapes the characters of a JSON text that JSON allows unescaped in strings, but a terminal would interpret.
pub(crate) fn json(text: &str) -> String {
    let escape = |character: char| match character {
        '\n' => "\n".to_owned(),
        _ if Escaped(character.encode_utf8(&mut [0; 4])).to_string().starts_with("\\u") => {
            format!("\\u{:04x}", u32::from(character))
        }
        _ => character.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_json_stays_the_same_value() {
        assert_eq!(lines("a\u{1b}[31m\nb\u{9b}\u{202e}"), "a\\u{1b}[31m\nb\\u{9b}\\u{202e}");
        let value = serde_json::json!({ "a\u{9b}\u{7f}\u{202e}\n": "\u{1b}ä\\" });
        let text = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
