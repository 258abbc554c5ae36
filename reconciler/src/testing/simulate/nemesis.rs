//! What goes wrong in one seed: each class of faults is on or off (swarm testing), and its rate is drawn.

use crate::testing::sim_host::Random;

/// A blow that falls at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blow {
    Edit,
    /// Back to an earlier version of the file.
    EditBack,
    /// Several edits within moments.
    EditStorm,
    /// The file goes, or comes again.
    Remove,
    Down,
    DownWithVolumes,
    /// The file is bad and no version of it is known to be good.
    Hold,
    /// A source cannot be read.
    Incomplete,
    Intent,
    /// Somebody wants to know how it is now.
    Ask,
    CrashAgent,
    /// As an upgrade: at once again.
    RestartAgent,
    /// The agent gets no processor for a while.
    Stall,
    CrashHost,
    Exit,
    Health,
    Damage,
    Unreadable,
    DiskFull,
    /// A start is refused until something has changed.
    Refuse,
    Clock,
    ForeignPort,
    ImageGone,
    ImageMoves,
    RareImage,
    TagMoves,
    RegistryDown,
    /// Somebody pulls.
    Pull,
}

/// Blows that each seed may have, with their weight when they are on.
const BLOWS: &[(Blow, u64)] = &[
    (Blow::EditBack, 2),
    (Blow::EditStorm, 1),
    (Blow::Remove, 1),
    (Blow::Down, 1),
    (Blow::DownWithVolumes, 1),
    (Blow::Hold, 1),
    (Blow::Incomplete, 1),
    (Blow::Intent, 2),
    (Blow::Ask, 1),
    (Blow::CrashAgent, 3),
    (Blow::RestartAgent, 1),
    (Blow::Stall, 1),
    (Blow::CrashHost, 1),
    (Blow::Exit, 4),
    (Blow::Health, 2),
    (Blow::Damage, 6),
    (Blow::Unreadable, 1),
    (Blow::DiskFull, 1),
    (Blow::Refuse, 2),
    (Blow::Clock, 1),
    (Blow::ForeignPort, 1),
    (Blow::ImageGone, 1),
    (Blow::ImageMoves, 1),
    (Blow::RareImage, 1),
    (Blow::TagMoves, 6),
    (Blow::RegistryDown, 1),
    (Blow::Pull, 1),
];

/// The character of one seed.
#[derive(Debug, Clone)]
pub struct Nemesis {
    blows: Vec<(Blow, u64)>,
    weight: u64,
    /// Blows that are still to fall.
    pub left: u32,
    /// Milliseconds between two blows, about.
    gap: u64,
    /// Milliseconds that an ordinary call takes at most.
    pub pace: u64,
    /// Milliseconds from something new to the round that takes it up, about: what comes until then is taken
    /// together.
    pub heed: u64,
    /// One in so many calls fails before its effect; 0: none.
    pub fails: u64,
    /// One in so many calls is reported as failed although it was done; 0: none.
    pub lies: u64,
    /// One in so many calls pauses between two of its mutations; 0: none.
    pub pauses: u64,
    /// One in so many hints is lost, doubled, late; 0: none.
    pub lost: u64,
    pub doubled: u64,
    pub late: u64,
    /// One in so many pulls takes minutes; 0: none.
    pub slow_pulls: u64,
    /// A look takes its parts at different moments.
    pub torn_looks: bool,
    /// What comes in is taken in any order.
    pub shuffled: bool,
}

impl Nemesis {
    pub fn draw(random: &mut Random, intents: bool) -> Self {
        let mut rate = |most: u64| {
            if random.chance(2) {
                2 + random.below(most)
            } else {
                0
            }
        };
        let (fails, lies, pauses) = (rate(30), rate(40), rate(6));
        let (lost, doubled, late, slow_pulls) = (rate(6), rate(6), rate(6), rate(4));
        let mut blows = vec![(Blow::Edit, 6)];
        let possible = BLOWS.iter().filter(|(blow, _)| intents || *blow != Blow::Intent);
        for (blow, weight) in possible {
            if random.chance(2) {
                blows.push((*blow, *weight * (1 + random.below(3))));
            }
        }
        let weight = blows.iter().map(|(_, weight)| weight).sum();
        Nemesis {
            blows,
            weight,
            left: 4 + random.below(40) as u32,
            gap: [50, 500, 2_000, 10_000, 40_000][random.below(5) as usize],
            pace: [2, 10, 50, 400][random.below(4) as usize],
            heed: [3, 3, 10, 50, 200][random.below(5) as usize],
            fails,
            lies,
            pauses,
            lost,
            doubled,
            late,
            slow_pulls,
            torn_looks: random.chance(2),
            shuffled: random.chance(2),
        }
    }

    /// The next blow and the time until then; `None`: it was the last.
    pub fn next(&mut self, random: &mut Random) -> Option<(u64, Blow)> {
        self.left = self.left.checked_sub(1)?;
        let mut draw = random.below(self.weight);
        let blow = self.blows.iter().find(|(_, weight)| {
            let found = draw < *weight;
            draw = draw.saturating_sub(*weight);
            found
        });
        let wait = 1 + random.below(self.gap * 2);
        Some((wait, blow.map_or(Blow::Edit, |(blow, _)| *blow)))
    }

    /// Peace: nothing fails, is lost or takes long any more.
    pub fn rest(&mut self) {
        self.left = 0;
        self.pace = self.pace.min(50);
        for rate in [
            &mut self.fails,
            &mut self.lies,
            &mut self.pauses,
            &mut self.lost,
            &mut self.doubled,
            &mut self.late,
            &mut self.slow_pulls,
        ] {
            *rate = 0;
        }
        self.torn_looks = false;
    }

    pub fn strikes(rate: u64, random: &mut Random) -> bool {
        rate > 0 && random.chance(rate)
    }
}
