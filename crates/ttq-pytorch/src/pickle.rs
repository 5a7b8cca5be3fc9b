//! A pickle machine for protocols 0 to 5 that builds data and calls nothing.
//!
//! A call of a function or class becomes an [`Object::Built`], which holds the name of what would be called and the
//! arguments. Objects are in one table and refer to each other by index, so that a shared object exists once and
//! neither building nor freeing recurses.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::Error;

/// Maximum number of opcodes of a pickle, which bounds memory at a small multiple of it. A checkpoint has about fifty
/// for each tensor.
const OPCODES: usize = 10_000_000;
/// Maximum size of copies of values that a pickle uses more than once, in bytes.
const COPIES: usize = 1 << 28;

/// Index of an object.
pub(crate) type Id = usize;

/// Values of a pickle. Texts and names borrow the input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// A value of which only the kind is kept.
    Other(&'static str),
    /// Tuples and frozen sets.
    Tuple(Vec<Id>),
    /// Lists and sets.
    List(Vec<Id>),
    /// Dictionaries, also `OrderedDict` and `defaultdict`, with the attributes that some have.
    Dict {
        entries: Vec<(Id, Id)>,
        attributes: Option<Id>,
    },
    /// A class or function.
    Global {
        module: Cow<'a, str>,
        name: Cow<'a, str>,
    },
    /// A reference to something outside of the pickle: in PyTorch files, a storage.
    Persistent(Id),
    /// The result of a call: what is called, its arguments, and state and items that were added later.
    Built {
        class: Id,
        arguments: Id,
        contents: Vec<Id>,
    },
}

/// A pickle as a table of objects.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    pub(crate) objects: Vec<Object<'a>>,
    pub(crate) root: Id,
    /// Number of bytes read.
    pub(crate) length: usize,
}

const NONE: Id = 0;
const FALSE: Id = 1;
const TRUE: Id = 2;
const EMPTY_TUPLE: Id = 3;

/// Reads the pickle at the start of `input`.
pub(crate) fn read(input: &[u8]) -> Result<Pickle<'_>, Error> {
    let constants = [Object::None, Object::Bool(false), Object::Bool(true), Object::Tuple(Vec::new())];
    let mut machine = Machine {
        input,
        at: 0,
        objects: constants.into(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    for _ in 0..OPCODES {
        if let Some(root) = machine.step()? {
            return Ok(Pickle { objects: machine.objects, root, length: machine.at });
        }
    }
    Err(Error::damaged(format!("its pickle has more than {OPCODES} opcodes")))
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Size of the values copied so far, in bytes.
    copied: usize,
}

impl<'a> Machine<'a> {
    fn error(&self, reason: &str) -> Error {
        Error::damaged(format!("its pickle {reason} at byte {}", self.at))
    }

    /// Counts the copy of a value of some bytes.
    fn copy(&mut self, bytes: usize) -> Result<(), Error> {
        self.copied = self.copied.saturating_add(bytes);
        if self.copied > COPIES { Err(self.error("copies shared values too often")) } else { Ok(()) }
    }

    fn bytes(&mut self, length: u64) -> Result<&'a [u8], Error> {
        let rest = &self.input[self.at..];
        let bytes = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let bytes = bytes.ok_or_else(|| self.error("ends early"))?;
        self.at += bytes.len();
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N as u64)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u64, Error> {
        Ok(u64::from(self.array::<1>()?[0]))
    }

    fn u32(&mut self) -> Result<u64, Error> {
        Ok(u64::from(u32::from_le_bytes(self.array()?)))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads up to the end of the line.
    fn line(&mut self) -> Result<Cow<'a, str>, Error> {
        let rest = &self.input[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.error("ends early"))?;
        self.at += length + 1;
        Ok(String::from_utf8_lossy(rest[..length].strip_suffix(b"\r").unwrap_or(&rest[..length])))
    }

    fn text(&mut self, length: u64) -> Result<Object<'a>, Error> {
        Ok(Object::Text(String::from_utf8_lossy(self.bytes(length)?)))
    }

    fn new_object(&mut self, object: Object<'a>) -> Id {
        self.objects.push(object);
        self.objects.len() - 1
    }

    fn push(&mut self, object: Object<'a>) {
        let id = self.new_object(object);
        self.stack.push(id);
    }

    fn pop(&mut self) -> Result<Id, Error> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.error("takes a value from an empty stack"));
        }
        self.stack.pop().ok_or_else(|| self.error("takes a value from an empty stack"))
    }

    fn top(&mut self) -> Result<Id, Error> {
        let id = self.pop()?;
        self.stack.push(id);
        Ok(id)
    }

    /// Removes the values above the last mark.
    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Error> {
        let mark = self.marks.pop().ok_or_else(|| self.error("uses a mark that was not set"))?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, length: usize) -> Result<(), Error> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Object::Tuple(items));
        Ok(())
    }

    fn put(&mut self, key: u64) -> Result<(), Error> {
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn get(&mut self, key: u64) -> Result<(), Error> {
        let id = self.memo.get(&key).copied().ok_or_else(|| self.error("uses a memo that was not set"))?;
        self.stack.push(id);
        Ok(())
    }

    fn decimal(&self, text: &str) -> Result<i64, Error> {
        text.trim_end_matches('L').parse().map_err(|_| self.error("has an invalid number"))
    }

    /// Executes one opcode. Returns the result after the last one.
    fn step(&mut self) -> Result<Option<Id>, Error> {
        let opcode = self.array::<1>()?[0];
        match opcode {
            b'.' => return self.pop().map(Some),
            // PROTO and FRAME.
            0x80 => _ = self.u8()?,
            0x95 => _ = self.u64()?,
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                // POP also removes a mark.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => _ = self.pop_to_mark()?,
            b'2' => {
                let id = self.top()?;
                self.stack.push(id);
            }
            b'N' => self.stack.push(NONE),
            0x88 => self.stack.push(TRUE),
            0x89 => self.stack.push(FALSE),
            b'I' => match &*self.line()? {
                "00" => self.stack.push(FALSE),
                "01" => self.stack.push(TRUE),
                text => {
                    let number = self.decimal(text)?;
                    self.push(Object::Int(number));
                }
            },
            b'L' => {
                let line = self.line()?;
                let number = self.decimal(&line).map_or(Object::Other("an integer"), Object::Int);
                self.push(number);
            }
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(number.into()));
            }
            b'K' => {
                let number = self.u8()?;
                self.push(Object::Int(number as i64));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(number.into()));
            }
            0x8a => {
                let length = self.u8()?;
                self.long(length)?;
            }
            0x8b => {
                let length = self.u32()?;
                self.long(length)?;
            }
            b'F' => {
                let line = self.line()?;
                let number = line.parse().map_err(|_| self.error("has an invalid number"))?;
                self.push(Object::Float(number));
            }
            b'G' => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(Object::Float(number));
            }
            b'V' | b'S' => {
                let line = self.line()?;
                let quoted = |quote| line.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
                let text = if opcode == b'V' { None } else { quoted('\'').or(quoted('"')) };
                let text = text.map(str::to_owned);
                self.push(Object::Text(text.map_or(line, Cow::Owned)));
            }
            // Strings of Python 2 are texts: names of parameters in files of that time.
            b'U' | 0x8c => {
                let length = self.u8()?;
                let text = self.text(length)?;
                self.push(text);
            }
            b'X' | b'T' => {
                let length = self.u32()?;
                let text = self.text(length)?;
                self.push(text);
            }
            0x8d => {
                let length = self.u64()?;
                let text = self.text(length)?;
                self.push(text);
            }
            b'C' => {
                let length = self.u8()?;
                self.skip_bytes(length)?;
            }
            b'B' => {
                let length = self.u32()?;
                self.skip_bytes(length)?;
            }
            0x8e | 0x96 => {
                let length = self.u64()?;
                self.skip_bytes(length)?;
            }
            b')' => self.stack.push(EMPTY_TUPLE),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items));
            }
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b']' | 0x8f => self.push(Object::List(Vec::new())),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Object::List(items));
            }
            0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items));
            }
            b'}' => self.push(Object::Dict { entries: Vec::new(), attributes: None }),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Dict { entries: Vec::new(), attributes: None });
                self.set_items(&items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Object::Global { module, name });
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.objects[module], &self.objects[name]) {
                    (Object::Text(module), Object::Text(name)) => {
                        let (module, name) = (module.clone(), name.clone());
                        self.copy(module.len() + name.len())?;
                        self.push(Object::Global { module, name });
                    }
                    _ => return Err(self.error("names a class by something that is not text")),
                }
            }
            b'R' | 0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                self.call(class, arguments)?;
            }
            0x92 => {
                let (_, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(class, arguments)?;
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let arguments = self.pop_to_mark()?;
                let class = self.new_object(Object::Global { module, name });
                let arguments = self.new_object(Object::Tuple(arguments));
                self.call(class, arguments)?;
            }
            b'o' => {
                let mut items = self.pop_to_mark()?;
                if items.is_empty() {
                    return Err(self.error("creates an object without a class"));
                }
                let class = items.remove(0);
                let arguments = self.new_object(Object::Tuple(items));
                self.call(class, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                match &mut self.objects[target] {
                    Object::Dict { attributes, .. } => *attributes = Some(state),
                    Object::Built { contents, .. } => contents.push(state),
                    _ => return Err(self.error("sets the state of something that has none")),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Persistent(id));
            }
            b'P' => {
                let line = self.line()?;
                let id = self.new_object(Object::Text(line));
                self.push(Object::Persistent(id));
            }
            b'q' => {
                let key = self.u8()?;
                self.put(key)?;
            }
            b'r' => {
                let key = self.u32()?;
                self.put(key)?;
            }
            b'p' => {
                let line = self.line()?;
                let key = self.decimal(&line)?;
                self.put(key as u64)?;
            }
            0x94 => self.put(self.memo.len() as u64)?,
            b'h' => {
                let key = self.u8()?;
                self.get(key)?;
            }
            b'j' => {
                let key = self.u32()?;
                self.get(key)?;
            }
            b'g' => {
                let line = self.line()?;
                let key = self.decimal(&line)?;
                self.get(key as u64)?;
            }
            // Extension codes are numbers of classes that a registry in the process of the writer knows.
            0x82..=0x84 => {
                self.bytes([1, 2, 4][usize::from(opcode - 0x82)])?;
                self.push(Object::Other("an object of a registered class"));
            }
            0x98 => {}
            _ => return Err(self.error(&format!("has the invalid opcode {opcode:#04x}"))),
        }
        Ok(None)
    }

    /// Reads a little-endian integer in two's complement.
    fn long(&mut self, length: u64) -> Result<(), Error> {
        let bytes = self.bytes(length)?;
        let object = if bytes.len() <= 8 {
            let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
            let mut number = [if negative { 0xff } else { 0 }; 8];
            number[..bytes.len()].copy_from_slice(bytes);
            Object::Int(i64::from_le_bytes(number))
        } else {
            Object::Other("an integer")
        };
        self.push(object);
        Ok(())
    }

    fn skip_bytes(&mut self, length: u64) -> Result<(), Error> {
        self.bytes(length)?;
        self.push(Object::Other("bytes"));
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> Result<(), Error> {
        let target = self.top()?;
        match &mut self.objects[target] {
            Object::List(list) | Object::Built { contents: list, .. } => list.extend(items),
            _ => return Err(self.error("appends to something that is not a list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), Error> {
        let (pairs, []) = items.as_chunks::<2>() else { return Err(self.error("has a key without a value")) };
        let target = self.top()?;
        match &mut self.objects[target] {
            Object::Dict { entries, .. } => entries.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Object::Built { contents, .. } => contents.extend(items),
            _ => return Err(self.error("sets an item of something that is not a dictionary")),
        }
        Ok(())
    }

    /// Pushes the result of a call. Dictionaries and `torch.Size` are data; everything else stays a call.
    fn call(&mut self, class: Id, arguments: Id) -> Result<(), Error> {
        let name = match &self.objects[class] {
            Object::Global { module, name } => (&**module, &**name),
            _ => ("", ""),
        };
        match name {
            ("collections", "OrderedDict" | "defaultdict") | ("__builtin__" | "builtins", "dict") => {
                let entries = self.pairs(arguments);
                self.copy(std::mem::size_of_val(&entries[..]))?;
                self.push(Object::Dict { entries, attributes: None });
            }
            ("torch", "Size") if !self.items(arguments).is_empty() => self.stack.push(self.items(arguments)[0]),
            _ => self.push(Object::Built { class, arguments, contents: Vec::new() }),
        }
        Ok(())
    }

    fn items(&self, id: Id) -> &[Id] {
        match &self.objects[id] {
            Object::Tuple(items) | Object::List(items) => items,
            _ => &[],
        }
    }

    /// Returns the pairs of `OrderedDict([(key, value), ..])`, as Python 2 pickles it.
    fn pairs(&self, arguments: Id) -> Vec<(Id, Id)> {
        let Some(&list) = self.items(arguments).first() else { return Vec::new() };
        let pairs = self.items(list).iter().filter_map(|&pair| match self.items(pair) {
            &[key, value] => Some((key, value)),
            _ => None,
        });
        pairs.collect()
    }
}
