//! A graph that was read must survive writing and reading unchanged; one that compiles must run.
//!
//! Most inputs fail a checksum: start with files of small graphs as corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttq_packed::Coding;
use ttq_packed::network::{Arena, CompileOptions, Graph, Network};

fuzz_target!(|file: &[u8]| {
    let Ok(graph) = Graph::read(file) else { return };
    let written = graph.write(Coding::Plain, None).expect("a graph that was read can be written");
    assert_eq!(Graph::read(&written).expect("a written graph can be read"), graph);
    for int8 in [false, true] {
        let mut options = CompileOptions::default();
        (options.max_elements, options.int8) = (1 << 16, int8);
        let Ok(network) = Network::compile(&graph, &options) else { continue };
        let [input, output]: [usize; 2] = [network.input_dims(), network.output_dims()].map(|dims| dims.iter().product());
        network.run(&mut Arena::new(), &vec![0.5; 2 * input], &mut vec![0.0; 2 * output]).expect("a run");
    }
});
