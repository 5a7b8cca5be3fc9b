//! Writes files of torch.save from opcodes.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A pickle in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pickle(pub(crate) Vec<u8>);

impl Pickle {
    pub(crate) fn new() -> Self {
        Self(b"\x80\x02".to_vec())
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn text(mut self, text: &str) -> Self {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.raw(text.as_bytes())
    }

    /// An integer of 8 bytes.
    pub(crate) fn int(self, number: i64) -> Self {
        self.raw(b"\x8a\x08").raw(&number.to_le_bytes())
    }

    pub(crate) fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub(crate) fn sizes(self, sizes: &[i64]) -> Self {
        sizes.iter().fold(self.raw(b"("), |pickle, &size| pickle.int(size)).raw(b"t")
    }

    /// A reference to a storage. `view` follows in the format before version 1.6.
    pub(crate) fn storage(self, class: &str, key: &str, count: i64, view: &[u8]) -> Self {
        let pickle = self.raw(b"(").text("storage").global("torch", class).text(key).text("cpu").int(count);
        pickle.raw(view).raw(b"tQ")
    }

    pub(crate) fn tensor(self, class: &str, key: &str, count: i64, place: (i64, &[i64], &[i64])) -> Self {
        self.tensor_with(class, key, count, place, b"")
    }

    pub(crate) fn tensor_with(
        self,
        class: &str,
        key: &str,
        count: i64,
        (offset, shape, strides): (i64, &[i64], &[i64]),
        view: &[u8],
    ) -> Self {
        let pickle = self.global("torch._utils", "_rebuild_tensor_v2").raw(b"(").storage(class, key, count, view);
        pickle.int(offset).sizes(shape).sizes(strides).raw(b"\x89)tR")
    }

    /// A float32 vector that fills its storage.
    pub(crate) fn vector(self, key: &str, count: i64) -> Self {
        self.tensor("FloatStorage", key, count, (0, &[count], &[1]))
    }
}

/// Returns little-endian float32 numbers 0, 1, 2, ...
pub(crate) fn numbers(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| (number as f32).to_le_bytes()).collect()
}

/// Returns a zip file with these entries.
pub(crate) fn zip(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        archive.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// Returns a file in the format of version 1.6 and later.
pub(crate) fn saved(pickle: &Pickle, storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let names: Vec<String> = storages.iter().map(|(key, _)| format!("net/data/{key}")).collect();
    let mut entries = vec![("net/data.pkl", &pickle.0[..])];
    entries.extend(names.iter().zip(storages).map(|(name, (_, bytes))| (&name[..], &bytes[..])));
    zip(&entries, CompressionMethod::Stored)
}

/// Returns a file in the format before version 1.6, whose storages have elements of `size` bytes.
pub(crate) fn saved_before(pickle: &Pickle, storages: &[(&str, Vec<u8>)], size: usize) -> Vec<u8> {
    let mut keys = Pickle::new().raw(b"](");
    for (key, _) in storages {
        keys = keys.text(key);
    }
    let keys = keys.raw(b"e.").0;
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    // Of a big-endian machine, whose numbers are little-endian nevertheless.
    let system = Pickle::new().raw(b"}").text("little_endian").raw(b"\x89s.").0;
    let mut file = [&magic[..], b"\x80\x02\x4d\xe9\x03.", &system, &pickle.0, &keys].concat();
    for (_, bytes) in storages {
        file.extend(((bytes.len() / size) as u64).to_le_bytes());
        file.extend(bytes);
    }
    file
}
