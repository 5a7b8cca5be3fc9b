//! The page of a network: a picture of its graph, and a table of its values.

use maud::{Markup, html};

use super::cards::{Card, cards};
use super::size::bar;
use super::{Section, document, note, number};
use crate::chart::{GraphBox, graph_picture};
use crate::network::{NetworkSummary, NetworkTotal, ValueSummary};

/// Maximum number of boxes of the picture.
const MOST_BOXES: usize = 1000;
/// Maximum numbers of characters at the left and at the right of a line of a box, and of a line alone.
const CHARACTERS: [usize; 3] = [38, 34, 76];

/// Renders the graph of a network as a self-contained HTML document.
pub fn render_network(name: &str, network: &NetworkSummary) -> String {
    let sections = [
        Section { id: "graph", title: "Graph", body: graph(network) },
        Section { id: "values", title: "Values", body: values(network) },
    ];
    let head = html! {
        p.kicker { "Network" }
        h1 { (name) }
        (cards(&totals(network)))
    };
    document(&format!("{name} – network"), head, &sections)
}

fn totals(network: &NetworkSummary) -> Vec<Card> {
    let NetworkTotal { operations, parameters, ternary, zeros, multiply_adds, bytes, calibrated } = network.total;
    let shape = |value: Option<&ValueSummary>| value.map_or_else(String::new, |value| number::shape(&value.shape));
    let output = network.values.iter().find(|value| value.index == network.output);
    let percent = |part: usize, whole: usize| number::fixed(100.0 * part as f64 / whole as f64, 1, " %");
    vec![
        Card {
            name: "Operations",
            value: operations.to_string(),
            detail: format!("input {}, output {}", shape(network.values.first()), shape(output)),
        },
        Card {
            name: "Parameters",
            value: number::short_count(parameters as f64),
            detail: format!("{} ternary", percent(ternary, parameters)),
        },
        Card { name: "Zeros", value: percent(zeros, ternary), detail: "of the ternary parameters".into() },
        Card {
            name: "Multiply-adds",
            value: number::short_count(multiply_adds as f64),
            detail: "for an item, by the definition".into(),
        },
        Card {
            name: "Memory",
            value: number::bytes(bytes as f64),
            detail: "all values of an item in float32; compiled, they share memory".into(),
        },
        Card {
            name: "Int8",
            value: if calibrated { "ready" } else { "–" }.into(),
            detail: if calibrated { "ranges of values are part of the file" } else { "no ranges of values" }.into(),
        },
    ]
}

fn graph(network: &NetworkSummary) -> Markup {
    let groups = groups(network);
    let boxes = boxes(network, &groups[..groups.len().min(MOST_BOXES)]);
    let (picture, left_out) = graph_picture(&boxes);
    html! {
        (note("A box is an operation, with the operations of one operand and the same shape after it. Its bar is its share of \
               the largest number of multiply-adds. Lines at the side lead past other boxes."))
        @if groups.len() > MOST_BOXES {
            (note(&format!("The picture shows the first {MOST_BOXES} of {} boxes.", groups.len())))
        }
        @if left_out > 0 { (note(&format!("The {left_out} longest lines are left out."))) }
        p.legend {
            @for (name, color) in [("ternary", "c-valid"), ("float32 parameters", "c-pos"), ("no parameters", "c-faint")] {
                span { i class=(color) {} (name) }
            }
        }
        div.scroll { (picture) }
    }
}

/// Returns the positions of the values of each box. A value continues the box of its operand if it is the only one that
/// reads it, has the same shape, and is no product.
fn groups(network: &NetworkSummary) -> Vec<Vec<usize>> {
    let positions = positions(network);
    let mut readers = vec![0; network.values.len()];
    for operand in network.values.iter().flat_map(|value| &value.operands) {
        readers[positions(*operand)] += 1;
    }
    let mut group_of = vec![0; network.values.len()];
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, value) in network.values.iter().enumerate() {
        let before = match value.operands[..] {
            [operand] => Some(positions(operand)).filter(|before| {
                let operand = &network.values[*before];
                let continues = readers[*before] == 1 && operand.shape == value.shape && value.multiply_adds == 0;
                continues && operand.index != network.output
            }),
            _ => None,
        };
        match before {
            Some(before) => group_of[i] = group_of[before],
            None => {
                group_of[i] = groups.len();
                groups.push(Vec::new());
            }
        }
        groups[group_of[i]].push(i);
    }
    groups
}

/// Returns the function from the index of a value in the graph to its position among those that depend on the input.
fn positions(network: &NetworkSummary) -> impl Fn(usize) -> usize {
    let indices: Vec<usize> = network.values.iter().map(|value| value.index).collect();
    move |index| indices.binary_search(&index).expect("operands are values of the graph")
}

fn boxes(network: &NetworkSummary, groups: &[Vec<usize>]) -> Vec<GraphBox> {
    let positions = positions(network);
    let mut group_of = vec![0; network.values.len()];
    for (group, members) in groups.iter().enumerate() {
        members.iter().for_each(|member| group_of[*member] = group);
    }
    let most = network.values.iter().map(|value| value.multiply_adds).max().unwrap_or(0).max(1) as f64;
    let of_group = |members: &Vec<usize>| {
        let members: Vec<&ValueSummary> = members.iter().map(|member| &network.values[*member]).collect();
        let (first, last) = (members[0], members[members.len() - 1]);
        let parameters: usize = members.iter().map(|value| value.parameters).sum();
        let ternary = members.iter().any(|value| value.ternary > 0);
        let counts = [(parameters, "parameters"), (first.multiply_adds, "multiply-adds")];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> =
            counts.map(|(count, what)| format!("{} {what}", number::short_count(*count as f64))).collect();
        let then: Vec<&str> = members[1..].iter().map(|value| value.operation.as_str()).collect();
        let mut remark = if then.is_empty() { String::new() } else { format!("then {}", then.join(", ")) };
        if members.iter().any(|value| value.index == network.output) {
            remark += if remark.is_empty() { "output of the network" } else { "; output of the network" };
        }
        let mut from: Vec<usize> = first.operands.iter().map(|operand| group_of[positions(*operand)]).collect();
        from.sort_unstable();
        from.dedup();
        let lines = members.iter().map(|value| {
            format!("{} {}: {} {}", value.index, value.name, value.operation, number::shape(&value.shape))
        });
        GraphBox {
            title: [shorten(&first.operation, CHARACTERS[0]), shorten(&number::shape(&last.shape), CHARACTERS[1])],
            subtitle: [shorten(&first.name, CHARACTERS[0]), counts.join(", ")],
            remark: shorten(&remark, CHARACTERS[2]),
            tooltip: lines.collect::<Vec<_>>().join("\n"),
            color: if ternary {
                "c-valid"
            } else if parameters > 0 {
                "c-pos"
            } else {
                "c-faint"
            },
            share: first.multiply_adds as f64 / most,
            from,
        }
    };
    groups.iter().map(of_group).collect()
}

/// Returns a text of at most some characters. The end of a name says more than its start.
fn shorten(text: &str, characters: usize) -> String {
    let count = text.chars().count();
    if count <= characters {
        return text.to_owned();
    }
    let (start, end) = (characters / 3, characters - characters / 3 - 1);
    text.chars().take(start).chain(['…']).chain(text.chars().skip(count - end)).collect()
}

fn values(network: &NetworkSummary) -> Markup {
    let most = network.values.iter().map(|value| value.multiply_adds).max().unwrap_or(0) as f64;
    let count = |n: usize| if n == 0 { String::new() } else { number::count(n as u64) };
    let zeros = |zeros: usize, ternary: usize| {
        if ternary == 0 { String::new() } else { number::fixed(100.0 * zeros as f64 / ternary as f64, 1, " %") }
    };
    let total = &network.total;
    html! {
        (note("Numbers of an item. Parameters are elements of the constants that an operation is the first to use; bytes are in \
               float32."))
        div.scroll { table {
            thead { tr {
                th.n { "#" } th { "Value" } th { "Operation" } th.n { "From" } th.n { "Shape" } th.n { "Parameters" } th.n { "Zeros" }
                th { "Multiply-adds" } th.n { "Bytes" }
            } }
            tbody {
                @for value in &network.values {
                    tr {
                        td.n { (value.index) }
                        td { (value.name) }
                        td { (value.operation) }
                        td.n { (value.operands.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")) }
                        td.n { (number::shape(&value.shape)) }
                        td.n { (count(value.parameters)) }
                        td.n { (zeros(value.zeros, value.ternary)) }
                        @if value.multiply_adds > 0 {
                            (bar(value.multiply_adds as f64, most, count(value.multiply_adds), "c-valid"))
                        } @else { td {} }
                        td.n { (count(value.bytes)) }
                    }
                }
                tr.total {
                    td {} td { "Whole network" } td {} td {} td {}
                    td.n { (count(total.parameters)) } td.n { (zeros(total.zeros, total.ternary)) }
                    td { (count(total.multiply_adds)) } td.n { (count(total.bytes)) }
                }
            }
        } }
    }
}
