//! Tests of the reader on files made from opcodes.

mod files;

use files::{Pickle, numbers, saved, saved_before, zip};
use safetensors::{Dtype as Stored, SafeTensors};
use ttq_pytorch::{Checkpoint, Dtype, Error};
use zip::CompressionMethod;

/// A dictionary with the entries that `entries` pickles.
fn dict(entries: impl FnOnce(Pickle) -> Pickle) -> Pickle {
    entries(Pickle::new().raw(b"}(")).raw(b"u.")
}

fn open(pickle: &Pickle, storages: &[(&str, Vec<u8>)]) -> Checkpoint {
    Checkpoint::from_bytes(saved(pickle, storages)).unwrap()
}

fn floats(checkpoint: &Checkpoint, path: &str) -> Vec<f32> {
    let tensor = checkpoint.tensor(path).unwrap();
    tensor.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn paths(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.entries().iter().map(ttq_pytorch::Entry::path).collect()
}

fn names(checkpoint: &Checkpoint, key: Option<&str>) -> Vec<String> {
    checkpoint.model(key).unwrap().tensors().iter().map(|(name, _)| name.clone()).collect()
}

/// Elements of a tensor by the definition of strides.
fn naive(offset: i64, shape: &[i64], strides: &[i64]) -> Vec<f32> {
    let count: i64 = shape.iter().product();
    let element = |mut index: i64| {
        let mut at = offset;
        for (&size, &stride) in shape.iter().zip(strides).rev() {
            at += index % size * stride;
            index /= size;
        }
        at as f32
    };
    (0..count).map(element).collect()
}

#[test]
fn strides_are_honoured_in_both_formats() {
    let places: [(i64, &[i64], &[i64]); 10] = [
        (0, &[4, 6], &[6, 1]),
        (0, &[6, 4], &[1, 6]),
        (5, &[3, 2], &[7, 2]),
        (3, &[4, 5], &[0, 0]),
        (2, &[4, 5], &[1, 0]),
        (0, &[2, 3, 2, 2], &[12, 1, 6, 3]),
        (7, &[], &[]),
        (0, &[0, 4], &[4, 1]),
        (1, &[1, 5, 1], &[99, 3, 99]),
        (0, &[2, 2, 2, 2, 2], &[1, 2, 4, 8, 16]),
    ];
    for place in places {
        let (offset, shape, strides) = place;
        let pickle = dict(|pickle| pickle.text("w").tensor("FloatStorage", "0", 40, place));
        let legacy = dict(|pickle| pickle.text("w").tensor_with("FloatStorage", "0", 40, place, b"N"));
        let storages = [("0", numbers(40))];
        for file in [saved(&pickle, &storages), saved_before(&legacy, &storages, 4)] {
            let checkpoint = Checkpoint::from_bytes(file).unwrap();
            assert_eq!(floats(&checkpoint, "w"), naive(offset, shape, strides), "{place:?}");
            let shape: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
            assert_eq!(checkpoint.tensor("w").unwrap().shape, shape);
        }
    }
}

#[test]
fn a_tensor_must_lie_within_its_own_storage() {
    let places: [(i64, &[i64], &[i64]); 8] = [
        (1, &[40], &[1]),
        (40, &[1], &[1]),
        (0, &[5, 9], &[9, 1]),
        (0, &[2, 2], &[39, 1]),
        (i64::MAX, &[2], &[1]),
        (0, &[3], &[i64::MAX]),
        (0, &[1 << 40, 1 << 40], &[0, 0]),
        (-1, &[1], &[1]),
    ];
    let second = ("1", numbers(1000));
    for place in places {
        let pickle = dict(|pickle| pickle.text("w").tensor("FloatStorage", "0", 40, place));
        let checkpoint = open(&pickle, &[("0", numbers(40)), second.clone()]);
        assert!(checkpoint.entries()[0].is_damaged(), "{place:?}: {:?}", checkpoint.entries()[0]);
        assert!(matches!(checkpoint.tensor("w"), Err(Error::Tensor { path, .. }) if path == "w"), "{place:?}");
    }
    let pickle = dict(|pickle| pickle.text("w").vector("0", 40));
    for (storages, reason) in [
        (vec![second.clone()], "storage 0, which is missing"),
        (vec![("0", numbers(39))], "156 bytes instead of 160"),
        (vec![("0", Vec::new())], "0 bytes instead of 160"),
    ] {
        let message = open(&pickle, &storages).tensor("w").unwrap_err().to_string();
        assert!(message.starts_with("tensor `w` ") && message.contains(reason), "{message}");
    }
    // Storages beside another pickle are others.
    let file = zip(&[("net/data.pkl", &pickle.0), ("other/data/0", &numbers(40))], CompressionMethod::Stored);
    assert!(Checkpoint::from_bytes(file).unwrap().entries()[0].is_damaged());
}

#[test]
fn a_storage_that_does_not_match_its_checksum_is_an_error() {
    let mut file = saved(&dict(|pickle| pickle.text("w").vector("0", 40)), &[("0", numbers(40))]);
    let at = file.windows(4).position(|bytes| bytes == 39.0_f32.to_le_bytes()).unwrap();
    file[at] ^= 1;
    let error = Checkpoint::from_bytes(file).unwrap().tensor("w").unwrap_err();
    assert!(error.to_string().contains("net/data/0 does not match its checksum"), "{error}");
}

#[test]
fn an_expanded_tensor_beyond_the_memory_limit_is_named_and_not_read() {
    let huge: (i64, &[i64], &[i64]) = (0, &[1 << 21, 1 << 21], &[0, 0]);
    let pickle = dict(|pickle| {
        let pickle = pickle.text("w").tensor("FloatStorage", "0", 3, huge);
        pickle.text("k").vector("1", 8)
    });
    let checkpoint = open(&pickle, &[("0", numbers(3)), ("1", numbers(8))]);
    let problem = checkpoint.entries()[0].problem().unwrap();
    assert!(problem.contains("17592186044416 bytes of memory"), "{problem}");
    assert_eq!(floats(&checkpoint, "k"), floats(&checkpoint, "k"));
    // Many of them count together.
    let large: (i64, &[i64], &[i64]) = (0, &[1 << 10, 1 << 14], &[0, 0]);
    let pickle = dict(|pickle| {
        (0..100).fold(pickle, |pickle, index| pickle.text(&index.to_string()).tensor("FloatStorage", "0", 3, large))
    });
    let checkpoint = open(&pickle, &[("0", numbers(3))]);
    assert_eq!(checkpoint.entries().iter().filter(|entry| entry.problem().is_none()).count(), 16);
}

#[test]
fn every_type_is_read_and_the_others_are_named_with_the_reason() {
    let types = [
        ("DoubleStorage", Dtype::F64, Stored::F64),
        ("FloatStorage", Dtype::F32, Stored::F32),
        ("HalfStorage", Dtype::F16, Stored::F16),
        ("BFloat16Storage", Dtype::Bf16, Stored::BF16),
        ("LongStorage", Dtype::I64, Stored::I64),
        ("IntStorage", Dtype::I32, Stored::I32),
        ("ShortStorage", Dtype::I16, Stored::I16),
        ("CharStorage", Dtype::I8, Stored::I8),
        ("ByteStorage", Dtype::U8, Stored::U8),
        ("BoolStorage", Dtype::Bool, Stored::BOOL),
    ];
    for (class, dtype, stored) in types {
        let pickle = dict(|pickle| pickle.text("w").tensor(class, "0", 2, (1, &[1], &[1])));
        let bytes: Vec<u8> = (0..2 * dtype.size() as u8).collect();
        let checkpoint = open(&pickle, &[("0", bytes.clone())]);
        let tensor = checkpoint.tensor("w").unwrap();
        assert_eq!((tensor.dtype, &tensor.bytes[..]), (dtype, &bytes[dtype.size()..]), "{class}");
        let file = checkpoint.model(None).unwrap().to_safetensors().unwrap();
        let tensor = SafeTensors::deserialize(&file).unwrap().tensor("w").unwrap();
        assert_eq!((tensor.dtype(), tensor.data()), (stored, &bytes[dtype.size()..]), "{class}");
    }
    let v3 = |name| {
        dict(|pickle| {
            let pickle = pickle.text("w").global("torch._utils", "_rebuild_tensor_v3").raw(b"(");
            let pickle = pickle.raw(b"(").text("storage").global("torch.storage", "UntypedStorage").text("0");
            let pickle = pickle.text("cpu").int(4).raw(b"tQ").int(0).sizes(&[4]).sizes(&[1]).raw(b"\x89)");
            pickle.global("torch", name).raw(b"tR")
        })
    };
    for (name, dtype, stored) in
        [("float8_e4m3fn", Dtype::F8E4m3, Stored::F8_E4M3), ("float8_e5m2", Dtype::F8E5m2, Stored::F8_E5M2)]
    {
        let checkpoint = open(&v3(name), &[("0", vec![1, 2, 3, 4])]);
        let tensor = checkpoint.tensor("w").unwrap();
        assert_eq!((tensor.dtype, tensor.bytes), (dtype, vec![1, 2, 3, 4]));
        let file = checkpoint.model(None).unwrap().to_safetensors().unwrap();
        assert_eq!(SafeTensors::deserialize(&file).unwrap().tensor("w").unwrap().dtype(), stored);
    }
    let call = |module, name| dict(|pickle| pickle.text("w").global(module, name).raw(b")R"));
    let storage = |class| dict(|pickle| pickle.text("w").tensor(class, "0", 1, (0, &[1], &[1])));
    let cases = [
        (v3("float4_e2m1fn_x2"), "has the type float4_e2m1fn_x2"),
        (call("torch._utils", "_rebuild_qtensor"), "is quantized"),
        (call("torch._utils", "_rebuild_sparse_tensor"), "is sparse"),
        (call("torch._utils", "_rebuild_nested_tensor"), "is built by torch._utils._rebuild_nested_tensor"),
        (storage("ComplexFloatStorage"), "is complex"),
        (storage("QInt8Storage"), "is quantized"),
        (storage("NewStorage"), "has the type NewStorage"),
    ];
    for (pickle, reason) in cases {
        let checkpoint = open(&pickle, &[("0", numbers(10))]);
        let entry = &checkpoint.entries()[0];
        assert!(entry.problem().unwrap().starts_with(reason) && !entry.is_damaged(), "{entry:?}");
    }
}

#[test]
fn every_tensor_has_a_path_and_everything_else_is_listed_by_kind() {
    let pickle = dict(|pickle| {
        let pickle = pickle.text("weights").raw(b"](").vector("0", 1).vector("0", 2).raw(b"e");
        let pickle = pickle.text("pair").raw(b"(").vector("0", 3).raw(b"K\x01t");
        let pickle = pickle.int(7).vector("0", 4).raw(b"\x88").vector("0", 5).raw(b"N").raw(b"K\x02");
        let pickle = pickle.raw(b"(K\x01K\x02t").vector("0", 6).raw(b"G\x3f\xe0\0\0\0\0\0\0").vector("0", 7);
        let pickle = pickle.text("command").global("os", "system").text("false").raw(b"\x85R");
        let pickle = pickle.text("args").global("argparse", "Namespace").raw(b")\x81}").text("t").vector("0", 8);
        pickle.raw(b"sb").text("epoch").raw(b"K\x03")
    });
    let checkpoint = open(&pickle, &[("0", numbers(10))]);
    assert_eq!(paths(&checkpoint), ["weights.0", "weights.1", "pair.0", "7", "True", "(1, 2)", "0.5"]);
    let skipped: Vec<(&str, &str, bool)> = checkpoint
        .skipped()
        .iter()
        .map(|skipped| (&skipped.path[..], &skipped.kind[..], skipped.has_tensors))
        .collect();
    let expected = [
        ("pair.1", "an integer", false),
        ("None", "an integer", false),
        ("command", "an object of os.system", false),
        ("args", "an object of argparse.Namespace", true),
        ("epoch", "an integer", false),
    ];
    assert_eq!(skipped, expected);
    let root = Pickle::new().vector("0", 2).raw(b".");
    assert_eq!(names(&open(&root, &[("0", numbers(10))]), None), ["tensor"]);
}

#[test]
fn the_last_of_equal_keys_counts_and_equal_names_of_different_tensors_are_an_error() {
    let pickle = dict(|pickle| pickle.text("w").vector("0", 1).text("w").vector("0", 2));
    let checkpoint = open(&pickle, &[("0", numbers(10))]);
    assert_eq!((paths(&checkpoint), floats(&checkpoint, "w").len()), (vec!["w"], 2));
    let pickle = dict(|pickle| pickle.text("7").vector("0", 1).int(7).vector("0", 2));
    let checkpoint = open(&pickle, &[("0", numbers(10))]);
    for error in [checkpoint.model(None).unwrap_err(), checkpoint.tensor("7").unwrap_err()] {
        assert!(matches!(&error, Error::Duplicate { path } if path == "7"), "{error}");
    }
}

#[test]
fn parameters_and_tied_weights_are_readable_under_each_name() {
    let pickle = dict(|pickle| {
        let pickle =
            pickle.text("a").global("torch._utils", "_rebuild_parameter").raw(b"(").vector("0", 4).raw(b"\x88)tRq\x07");
        let pickle = pickle.text("b").raw(b"h\x07").text("c").global("torch._utils", "_rebuild_parameter_with_state");
        pickle.raw(b"(").vector("1", 2).raw(b"\x88)}tR")
    });
    let checkpoint = open(&pickle, &[("0", numbers(4)), ("1", numbers(2))]);
    assert_eq!(floats(&checkpoint, "a"), floats(&checkpoint, "b"));
    let storages: Vec<Option<&str>> = checkpoint.entries().iter().map(ttq_pytorch::Entry::storage).collect();
    assert_eq!(storages, [Some("0"), Some("0"), Some("1")]);
}

/// A dictionary `key` of `w` and `b` with a prefix before both names.
fn state_dict(pickle: Pickle, key: &str, prefix: &str) -> Pickle {
    let pickle = pickle.text(key).global("collections", "OrderedDict").raw(b")R(");
    pickle.text(&format!("{prefix}w")).vector("0", 4).text(&format!("{prefix}b")).vector("0", 2).raw(b"u")
}

#[test]
fn one_wrapper_and_one_common_prefix_are_recognized_and_said() {
    let storages = [("0", numbers(10))];
    for key in ["state_dict", "model_state_dict", "model", "module", "net"] {
        for prefix in ["", "module.", "_orig_mod.", "module._orig_mod."] {
            let pickle = dict(|pickle| {
                let pickle = state_dict(pickle.text("epoch").raw(b"K\x03"), key, prefix);
                let pickle = pickle.text("optimizer").raw(b"}K\x00}").text("exp_avg").vector("0", 4).raw(b"ss");
                pickle.text("rng_state").vector("0", 1)
            });
            let checkpoint = open(&pickle, &storages);
            let model = checkpoint.model(None).unwrap();
            assert_eq!((names(&checkpoint, None), model.key()), (vec!["w".into(), "b".into()], Some(key)));
            assert_eq!(model.prefix().unwrap_or_default(), prefix);
            assert_eq!(model.unused(), ["optimizer", "rng_state"]);
            let sentence = model.to_string();
            assert!(sentence.contains(&format!("those of `{key}`")) && sentence.contains("`optimizer`"), "{sentence}");
        }
    }
    let flat = dict(|pickle| pickle.text("model.w").vector("0", 1).text("head.w").vector("0", 2));
    let checkpoint = open(&flat, &storages);
    assert_eq!(names(&checkpoint, None), ["model.w", "head.w"]);
    assert_eq!(checkpoint.model(None).unwrap().to_string(), "");
}

#[test]
fn a_key_chooses_among_several_models_and_a_wrong_one_lists_them() {
    let pickle = dict(|pickle| state_dict(state_dict(pickle, "model", ""), "model_ema", "module."));
    let checkpoint = open(&pickle, &[("0", numbers(10))]);
    let model = checkpoint.model(None).unwrap();
    assert_eq!(model.models(), ["model", "model_ema"]);
    assert_eq!(names(&checkpoint, None), ["model.w", "model.b", "model_ema.module.w", "model_ema.module.b"]);
    assert!(model.to_string().contains("several models, `model`, `model_ema`"), "{model}");
    assert_eq!(names(&checkpoint, Some("model_ema")), ["w", "b"]);
    let error = checkpoint.model(Some("ema")).unwrap_err().to_string();
    assert_eq!(error, "no entry `ema` holds tensors: choose one of `model`, `model_ema`");
}

#[test]
fn a_model_as_safetensors_has_its_names_and_values_without_the_tensors_that_are_not_read() {
    let transposed: (i64, &[i64], &[i64]) = (1, &[2, 3], &[1, 2]);
    let model = |pickle: Pickle| {
        let pickle = pickle.text("model").raw(b"}(").text("module.w").tensor("FloatStorage", "0", 10, transposed);
        let pickle = pickle.text("module.a").vector("0", 4).text("module.empty").vector("0", 0);
        pickle.text("module.q").global("torch._utils", "_rebuild_qtensor").raw(b")Ru").text("epoch").raw(b"K\x03")
    };
    let checkpoint = open(&dict(model), &[("0", numbers(10))]);
    let model = checkpoint.model(None).unwrap();
    let bytes = model.to_safetensors().unwrap();
    assert_eq!(model.to_safetensors().unwrap(), bytes);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut found = file.names();
    found.sort_unstable();
    assert_eq!(found, ["a", "empty", "w"]);
    for name in found {
        let (expected, found) =
            (checkpoint.tensor(&format!("model.module.{name}")).unwrap(), file.tensor(name).unwrap());
        assert_eq!((found.shape(), found.data()), (&expected.shape[..], &expected.bytes[..]), "{name}");
    }
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
}

#[test]
fn a_model_that_does_not_fit_a_safetensors_file_is_an_error() {
    let error = |name: &str, count: i64| {
        let checkpoint = open(&dict(|pickle| pickle.text(name).vector("0", count)), &[("0", numbers(10))]);
        checkpoint.model(None).unwrap().to_safetensors().unwrap_err().to_string()
    };
    let damaged = error("w", 11);
    assert!(damaged.starts_with("is damaged: tensor `w` ") && damaged.contains("40 bytes instead of 44"), "{damaged}");
    let reserved = error("__metadata__", 10);
    assert!(reserved.starts_with("does not fit a safetensors file: ") && reserved.contains("rename"), "{reserved}");
}

#[test]
fn a_whole_module_is_refused_with_the_cure() {
    let module = |pickle: Pickle| {
        let pickle = pickle.global("my.nets", "Net").raw(b")\x81}").text("_parameters");
        pickle.raw(b"}").text("w").vector("0", 4).raw(b"ssb")
    };
    let storages = [("0", numbers(4))];
    let whole = open(&module(Pickle::new()).raw(b"."), &storages).model(None).unwrap_err().to_string();
    assert!(whole.contains("the file is a whole module (my.nets.Net)") && whole.contains("state_dict()"), "{whole}");
    let inside = open(&dict(|pickle| module(pickle.text("model"))), &storages);
    for key in [None, Some("model")] {
        let message = inside.model(key).unwrap_err().to_string();
        assert!(message.starts_with("its entry `model` is a whole module"), "{message}");
    }
}

#[test]
fn folders_compression_byte_order_and_protocols_do_not_matter() {
    let pickle = dict(|pickle| pickle.text("w").vector("0", 40));
    let expected = numbers(40);
    let mut swapped = expected.clone();
    swapped.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    // Protocol 4: a frame, short texts, classes by two texts, memoized values.
    let mut frames =
        b"\x80\x04\x95\0\0\0\0\0\0\0\0}\x94(\x8c\x01w\x94\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93".to_vec();
    frames.extend(Pickle::default().raw(b"(").storage("FloatStorage", "0", 40, b"").int(0).sizes(&[40]).sizes(&[1]).0);
    frames.extend(b"\x89)tRu.");
    let files = [
        zip(&[("data.pkl", &pickle.0[..]), ("data/0", &expected)], CompressionMethod::Stored),
        zip(&[("a/data.pkl", &pickle.0[..]), ("a/data/0", &expected)], CompressionMethod::Deflated),
        zip(
            &[("a/data.pkl", &pickle.0[..]), ("a/byteorder", b"big"), ("a/data/0", &swapped)],
            CompressionMethod::Stored,
        ),
        saved(&Pickle(frames), &[("0", expected.clone())]),
    ];
    for (index, file) in files.into_iter().enumerate() {
        let checkpoint = Checkpoint::from_bytes(file).unwrap();
        assert_eq!(checkpoint.tensor("w").unwrap().bytes, expected, "file {index}");
    }
}

#[test]
fn other_files_are_refused_with_what_they_are() {
    let message = |bytes: &[u8]| Checkpoint::from_bytes(bytes.to_vec()).unwrap_err().to_string();
    assert!(message(b"").contains("no zip file"));
    assert!(message(b"\x80\x02}.").contains("plain pickle"));
    assert!(message(&zip(&[("a.txt", b"text")], CompressionMethod::Stored)).contains("without data.pkl"));
    let two = zip(&[("a/data.pkl", b"N."), ("b/data.pkl", b"N.")], CompressionMethod::Stored);
    assert!(message(&two).contains("two pickles"));
    let error = Checkpoint::open("missing.pt").unwrap_err();
    assert!(error.to_string().starts_with("missing.pt cannot be read"), "{error}");
}

#[test]
fn control_characters_in_names_are_escaped_in_messages() {
    let pickle = dict(|pickle| pickle.text("a\n\u{1b}[31m").tensor("FloatStorage", "0", 1, (9, &[1], &[1])));
    let checkpoint = open(&pickle, &[("0", numbers(1))]);
    let message = checkpoint.tensor("a\n\u{1b}[31m").unwrap_err().to_string();
    assert!(message.starts_with(r"tensor `a\n\u{1b}[31m` "), "{message}");
}

#[test]
fn hostile_pickles_are_errors_without_deep_recursion_or_much_memory() {
    let tensor = Pickle::default().vector("0", 4).0;
    let nested = |levels: usize| Pickle(b"]".repeat(levels)).raw(&tensor).raw(&b"a".repeat(levels)).raw(b".");
    // Each list holds the one before twice: 2^40 paths.
    let mut bomb = Pickle::new().raw(b"]").raw(&tensor).raw(b"aq\x00");
    for level in 1..41_u8 {
        bomb = bomb.raw(&[b']', b'h', level - 1, b'a', b'h', level - 1, b'a', b'q', level]);
    }
    let cyclic = Pickle::new().raw(b"]q\x00").raw(&tensor).raw(b"ah\x00a.");
    // Half a million values in a list, which are used again and again: by dictionaries, and on each level of a cycle.
    let values = b"K\x00\x85".repeat(500_000);
    let long = Pickle::new().raw(b"](").raw(&b"K\x00K\x00\x86".repeat(500_000)).raw(b"eq\x00\x85q\x01");
    let copies = long.raw(&b"ccollections\nOrderedDict\nh\x01R0".repeat(1000)).raw(&tensor).raw(b".");
    let wide = Pickle::new().raw(b"]q\x00").raw(&tensor).raw(b"ah\x00a(").raw(&values).raw(b"e.");
    // A text that is not UTF-8 is copied with every name of a class that uses it.
    let text = Pickle::new().raw(b"X\x00\x00\x10\x00").raw(&[0xff; 1 << 20]).raw(b"q\x00");
    let names = text.raw(&b"h\x00h\x00\x930".repeat(1000)).raw(&tensor).raw(b".");
    // Keys that name this class are labels of a megabyte.
    let key = Pickle::new().raw(b"X\x00\x00\x10\x00").raw(&[b'a'; 1 << 20]).raw(b"q\x00h\x00\x93q\x00}(");
    let keys = key.raw(&b"h\x00N".repeat(100_000)).raw(b"N").raw(&tensor).raw(b"u.");
    // So are the kinds of values, and the keys of storages.
    let kind = Pickle::new().raw(b"X\x00\x00\x10\x00").raw(&[b'a'; 1 << 20]).raw(b"q\x00h\x00\x93q\x00](");
    let kinds = kind.raw(&b"h\x00".repeat(100_000)).raw(&tensor).raw(b"e.");
    let tied = Pickle::new().raw(b"](").vector(&"a".repeat(1 << 20), 4).raw(b"q\x00");
    let tied = tied.raw(&b"h\x00".repeat(100_000)).raw(b"e.");
    for pickle in [nested(1000), nested(200_000), bomb.raw(b"."), cyclic, copies, wide, names, keys, kinds, tied] {
        let file = saved(&pickle, &[("0", numbers(4))]);
        assert!(matches!(Checkpoint::from_bytes(file), Err(Error::Damaged { .. })));
    }
    for pickle in [
        &b"."[..],
        b"a.",
        b"K",
        b"X\xff\xff\xff\xffa.",
        b"(.",
        b"t.",
        b"h\x01.",
        b"\xff.",
        b"Nb.",
        b"\x8b\xff\xff\xff\xff.",
    ] {
        let file = saved(&Pickle(pickle.to_vec()), &[]);
        assert!(matches!(Checkpoint::from_bytes(file), Err(Error::Damaged { .. })), "{pickle:?}");
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let pickle = dict(|pickle| {
        let pickle = state_dict(pickle.text("epoch").raw(b"K\x03"), "state_dict", "module.");
        let pickle = pickle.text("list").raw(b"](").tensor("HalfStorage", "1", 4, (1, &[2], &[2])).raw(b"e");
        pickle.text("object").global("a", "B").raw(b")\x81}").text("t").vector("0", 2).raw(b"sb")
    });
    let storages = [("0", numbers(4)), ("1", numbers(2))];
    let legacy = saved_before(&pickle, &storages, 4);
    let zipped = saved(&pickle, &storages);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut mutate = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(0..bytes.len());
            match rng.u8(0..4) {
                0 => bytes[at] = rng.u8(..),
                1 => bytes[at] ^= 1 << rng.u8(0..8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, rng.u8(..)),
            }
        }
        bytes
    };
    for _ in 0..4000 {
        for file in [mutate(&legacy), mutate(&zipped), saved(&Pickle(mutate(&pickle.0)), &storages)] {
            let Ok(checkpoint) = Checkpoint::from_bytes(file) else { continue };
            for entry in checkpoint.entries() {
                let read = checkpoint.tensor(entry.path());
                assert!(
                    read.is_ok()
                        || entry.problem().is_some()
                        || matches!(read, Err(Error::Damaged { .. } | Error::Duplicate { .. }))
                );
            }
            let _ = checkpoint.model(None).map(|model| (model.to_string(), model.to_safetensors()));
            let _ = checkpoint.model(Some("state_dict"));
        }
    }
}
