//! Breadth first over all states, so that the first way to a broken rule is a shortest one.

use std::{
    collections::HashMap,
    fmt::{self, Write},
};

use super::{
    Budget, Move, State,
    edits::{self, Edit},
};

/// What was looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub states: usize,
    pub transitions: usize,
    /// Moves from the first state to the farthest.
    pub depth: usize,
    /// Moves, without an accident, until even the longest way has ended.
    pub longest: usize,
    /// States in which nothing is left to be done.
    pub rests: usize,
}

/// A broken rule, and a shortest way to it.
#[derive(Debug)]
pub struct Broken {
    pub rule: String,
    pub way: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.rule)?;
        for (number, line) in self.way.iter().enumerate() {
            writeln!(f, "{:3} {line}", number + 1)?;
        }
        Ok(())
    }
}

/// A state that was found: where it is from.
#[derive(Clone, Copy)]
struct Found {
    parent: u32,
    /// Which of the parent's moves led here.
    number: u16,
}

struct Search {
    edits: Vec<Edit>,
    budget: Budget,
    ids: HashMap<u64, u32>,
    found: Vec<Found>,
    /// From a state to where it gets without an accident.
    calm: Vec<(u32, u32)>,
    extent: Extent,
}

/// One state that was looked at: its ways on, or the rule that was broken on them.
struct Looked {
    id: u32,
    ways: Vec<Way>,
    rests: bool,
    broken: Option<(Option<u16>, String)>,
}

struct Way {
    number: u16,
    calm: bool,
    hash: u64,
    /// Not there when the state is known already.
    state: Option<State>,
}

/// Looks at everything that `budget` lets happen, on `threads` threads; ends early at `most` states.
pub fn search(budget: Budget, threads: usize, most: usize) -> Result<Extent, Broken> {
    let edits = edits::edits().map_err(|rule| Broken {
        rule,
        way: Vec::new(),
    })?;
    let first = State::first(budget);
    let mut search = Search {
        edits,
        budget,
        ids: HashMap::from([(first.hash(), 0)]),
        found: vec![Found { parent: 0, number: 0 }],
        calm: Vec::new(),
        extent: Extent::default(),
    };
    let mut level = vec![(0, first)];
    while !level.is_empty() && search.found.len() < most {
        level = search.level(level, threads)?;
        search.extent.depth += 1;
    }
    search.extent.states = search.found.len();
    if level.is_empty() {
        search.extent.longest = search.every_way_ends()?;
    }
    Ok(search.extent)
}

impl Search {
    fn level(&mut self, level: Vec<(u32, State)>, threads: usize) -> Result<Vec<(u32, State)>, Broken> {
        let size = level.len().div_ceil(threads.max(1)).max(1);
        let (edits, ids) = (&self.edits, &self.ids);
        let looked: Vec<Looked> = std::thread::scope(|scope| {
            let chunks = level.chunks(size);
            let workers: Vec<_> = chunks
                .map(|chunk| {
                    scope.spawn(move || {
                        let looked = chunk.iter().map(|(id, state)| look(*id, state, edits, ids));
                        looked.collect::<Vec<_>>()
                    })
                })
                .collect();
            let done = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
            done.flat_map(|looked| looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let mut next = Vec::new();
        for one in looked {
            if let Some((number, rule)) = one.broken {
                return Err(self.broken(one.id, number, rule));
            }
            self.extent.rests += usize::from(one.rests);
            for way in one.ways {
                self.extent.transitions += 1;
                let id = match self.ids.get(&way.hash) {
                    Some(id) => *id,
                    None => {
                        let id = self.found.len() as u32;
                        self.ids.insert(way.hash, id);
                        self.found.push(Found {
                            parent: one.id,
                            number: way.number,
                        });
                        next.extend(way.state.map(|state| (id, state)));
                        id
                    }
                };
                if way.calm && id != one.id {
                    self.calm.push((one.id, id));
                } else if way.calm {
                    let rule = "a step that changes nothing".to_owned();
                    return Err(self.broken(one.id, Some(way.number), rule));
                }
            }
        }
        Ok(next)
    }

    /// Without accidents, no way comes back to where it was. The longest of them, in moves.
    fn every_way_ends(&self) -> Result<usize, Broken> {
        let count = self.found.len();
        let mut into = vec![0u32; count];
        let mut starts = vec![0usize; count + 1];
        for (from, to) in &self.calm {
            into[*to as usize] += 1;
            starts[*from as usize + 1] += 1;
        }
        for index in 0..count {
            starts[index + 1] += starts[index];
        }
        let mut place = starts.clone();
        let mut targets = vec![0u32; self.calm.len()];
        for (from, to) in &self.calm {
            targets[place[*from as usize]] = *to;
            place[*from as usize] += 1;
        }
        let mut longest = vec![0usize; count];
        let mut open: Vec<usize> = (0..count).filter(|index| into[*index] == 0).collect();
        let mut done = 0;
        while let Some(from) = open.pop() {
            done += 1;
            for to in &targets[starts[from]..starts[from + 1]] {
                let to = *to as usize;
                longest[to] = longest[to].max(longest[from] + 1);
                into[to] -= 1;
                if into[to] == 0 {
                    open.push(to);
                }
            }
        }
        if done == count {
            return Ok(longest.into_iter().max().unwrap_or(0));
        }
        // Whatever is left is on a circle or behind one: the nearest of it.
        let id = (0..count).find(|index| into[*index] > 0).unwrap_or(0);
        Err(self.broken(id as u32, None, "it goes round and never ends".to_owned()))
    }

    /// The way to state `id`, and its move `number` on top.
    fn broken(&self, id: u32, number: Option<u16>, rule: String) -> Broken {
        let mut numbers: Vec<u16> = number.into_iter().collect();
        let mut at = id;
        while at != 0 {
            let found = self.found[at as usize];
            numbers.push(found.number);
            at = found.parent;
        }
        numbers.reverse();
        let mut way = Vec::new();
        let mut state = State::first(self.budget);
        for number in numbers {
            let plan = state.plan(&self.edits);
            let moves = state.moves(&plan, &self.edits);
            let one = &moves[usize::from(number)];
            way.push(state.describe(one, &plan, &self.edits));
            match state.after(one, &plan, &self.edits) {
                Ok(next) => state = next,
                Err(_) => break,
            }
        }
        let mut rule = rule;
        let _ = write!(rule, "\n    wanted: {}; ", self.edits[state.edit()].name);
        let _ = write!(rule, "on the host: {}", state.processes());
        Broken { rule, way }
    }
}

fn look(id: u32, state: &State, edits: &[Edit], ids: &HashMap<u64, u32>) -> Looked {
    let mut state = state.clone();
    let plan = state.plan(edits);
    let moves = state.moves(&plan, edits);
    let mut looked = Looked {
        id,
        ways: Vec::with_capacity(moves.len()),
        rests: !moves.iter().any(Move::calm),
        broken: None,
    };
    if looked.rests {
        looked.broken = state.rest(&plan, edits).map(|rule| (None, rule));
    }
    for (number, one) in moves.iter().enumerate() {
        let number = number as u16;
        match state.after(one, &plan, edits) {
            Ok(next) => {
                let hash = next.hash();
                looked.ways.push(Way {
                    number,
                    calm: one.calm(),
                    hash,
                    state: (!ids.contains_key(&hash)).then_some(next),
                });
            }
            Err(rule) => {
                looked.broken.get_or_insert((Some(number), rule));
            }
        }
    }
    looked
}
