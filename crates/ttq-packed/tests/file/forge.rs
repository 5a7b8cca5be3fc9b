//! Construction of invalid files.

use ttq_packed::file;

/// Splits a file into the text of the header and the data, if possible.
pub(crate) fn open(file: &[u8]) -> Option<(String, Vec<u8>)> {
    let (length, rest) = file.split_first_chunk()?;
    let (header, data) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
    Some((String::from_utf8(header.to_vec()).ok()?, data.to_vec()))
}

/// Assembles a file from any header and any data.
pub(crate) fn assemble(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Replaces a text in the header and repairs the checksum if possible.
pub(crate) fn edit(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (header, data) = open(file).unwrap();
    assert!(header.contains(from), "`{from}` is not in {header}");
    repair_checksum(assemble(&header.replacen(from, to, 1), &data))
}

/// Replaces the recorded checksum by the correct one, if the contents can be parsed.
pub(crate) fn repair_checksum(mut file: Vec<u8>) -> Vec<u8> {
    let field = br#"\"crc32\":\""#;
    let found = file.windows(field.len()).position(|window| window == field);
    if let (Some(at), Ok(checksum)) = (found, file::checksum(&file))
        && let Some(digits) = file.get_mut(at + field.len()..at + field.len() + checksum.len())
    {
        digits.copy_from_slice(checksum.as_bytes());
    }
    file
}
