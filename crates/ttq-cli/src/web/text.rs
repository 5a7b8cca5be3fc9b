//! Text in pages.

/// Characters that a `script` element of HTML cannot contain or keep, and the one that replaces them, before their index as a digit.
const ESCAPED: [u8; 4] = [0, b'\r', b'<', ESCAPE];
const ESCAPE: u8 = 0x7f;

/// Writes bytes as ASCII characters of 7 bits each, the lowest first: 8 characters for 7 bytes, and 3 % more for those that are escaped.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 6 / 5);
    let (mut buffer, mut bits) = (0_u32, 0);
    let mut push = |buffer: u32| {
        let character = (buffer & 0x7f) as u8;
        match ESCAPED.iter().zip(b'0'..).find(|(escaped, _)| **escaped == character) {
            Some((_, digit)) => text.extend([ESCAPE, digit].map(char::from)),
            None => text.push(char::from(character)),
        }
    };
    for byte in bytes {
        buffer |= u32::from(*byte) << bits;
        bits += 8;
        while bits >= 7 {
            push(buffer);
            buffer >>= 7;
            bits -= 7;
        }
    }
    if bits > 0 {
        push(buffer);
    }
    text
}

/// Escapes text for an element or an attribute in double quotes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// Removes comments and indentation from a script or a style sheet, whose strings have none of their characters.
pub(super) fn compact(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("/**") {
        code.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    code.push_str(rest);
    let lines = code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of the decoder in `worker.js`.
    fn decode(text: &str, length: usize) -> Vec<u8> {
        let (mut bytes, mut buffer, mut bits) = (Vec::new(), 0, 0);
        let mut characters = text.bytes();
        while bytes.len() < length {
            let character = match characters.next().unwrap() {
                ESCAPE => ESCAPED[usize::from(characters.next().unwrap() - b'0')],
                character => character,
            };
            buffer |= u32::from(character) << bits;
            bits += 7;
            if bits >= 8 {
                bytes.push(buffer as u8);
                buffer >>= 8;
                bits -= 8;
            }
        }
        bytes
    }

    #[test]
    fn decoded_text_is_what_was_encoded_and_html_keeps_it() {
        for length in 0..300 {
            let bytes: Vec<u8> = (0..length).map(|i| (i * i * 31 + length) as u8).collect();
            let text = encode(&bytes);
            assert!(text.bytes().all(|byte| byte.is_ascii() && !ESCAPED[..3].contains(&byte)));
            assert_eq!(decode(&text, bytes.len()), bytes);
        }
    }

    #[test]
    fn compact_scripts_have_neither_comments_nor_indentation() {
        assert_eq!(compact("// a\n/**\n * b\n */\nif (x) {\n  f(/** @type {T} */ (y));\n}\n"), "if (x) {\nf( (y));\n}");
    }
}
