//! Benchmark of compiled networks.
//!
//! ```sh
//! cargo bench -p ttq-packed --bench network -- profile [BATCH]
//! cargo bench -p ttq-packed --bench network -- serve
//! ```
//!
//! `profile` prints the time of each layer on one thread. `serve` reads lines `BATCH THREADS CALLS` and answers each with
//! the seconds of the calls, so that another program can alternate between this network and others.

#[path = "../tests/network/resnet.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod resnet;

use std::io::BufRead;
use std::time::Instant;

use fastrand::Rng;
use resnet::{floats, resnet};
use ttq_packed::network::{Arena, CompileOptions, Network, RangeRule};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut rng = Rng::with_seed(1);
    let mut graph = resnet(&mut rng, 3, 32, 0.1);
    let mut options = CompileOptions::default();
    options.winograd = std::env::var("WINOGRAD").as_deref() != Ok("0");
    options.items = std::env::var("ITEMS").ok().and_then(|items| items.parse().ok());
    if std::env::var("INT8").is_ok() {
        let samples = floats(&mut rng, 16 * 3 * 32 * 32);
        graph.calibrate(&samples, RangeRule::MinMax).expect("a supported network");
        options.int8 = true;
        options.int8_ends = true;
    }
    let network = Network::compile(&graph, &options).expect("a supported network");
    let (items, bytes) = network.memory();
    eprintln!("{items} items at a time, arena of {} KiB", bytes / 1024);
    let mut arena = Arena::new();
    match arguments.first().map(String::as_str) {
        Some("serve") => {
            for line in std::io::stdin().lock().lines() {
                let line = line.expect("a readable line");
                let numbers: Vec<usize> = line.split_whitespace().map(|n| n.parse().expect("a number")).collect();
                let [batch, threads, calls] = numbers[..] else { panic!("expected BATCH THREADS CALLS, found {line}") };
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
                let x = floats(&mut rng, batch * 3 * 32 * 32);
                let mut y = vec![0.0; batch * 10];
                let times = pool.install(|| {
                    let mut call = || {
                        let start = Instant::now();
                        network.run(&mut arena, &x, &mut y).expect("a run");
                        start.elapsed().as_secs_f64()
                    };
                    call();
                    (0..calls).map(|_| format!("{:.7}", call())).collect::<Vec<_>>()
                });
                println!("{}", times.join(" "));
            }
        }
        _ => {
            let batch = arguments.get(1).map_or(1, |batch| batch.parse().expect("a number"));
            let x = floats(&mut rng, batch * 3 * 32 * 32);
            let mut y = vec![0.0; batch * 10];
            let mut best = vec![f64::INFINITY; network.layers().len()];
            for _ in 0..300 {
                let times = network.run_timed(&mut arena, &x, &mut y).expect("a run");
                best.iter_mut().zip(times).for_each(|(best, time)| *best = best.min(time));
            }
            for (layer, seconds) in network.layers().zip(&best) {
                println!("{:30} {:10} {:8.2} us", layer.name, layer.algorithm, 1e6 * seconds);
            }
            println!("sum {:.1} us", 1e6 * best.iter().sum::<f64>());
        }
    }
}
