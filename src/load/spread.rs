//! Which connection goes to which broker, and works on which of its partitions. Pure.

/// Partitions of a topic by their leaders, and connections dealt out to these.
pub struct Spread {
    /// The partitions that each leader leads, in order.
    led: Vec<Vec<i32>>,
    seats: Vec<Seat>,
    /// Connections of each leader.
    siblings: Vec<usize>,
}

/// A connection's broker, and its number among those that go there too.
#[derive(Clone, Copy)]
struct Seat {
    leader: usize,
    number: usize,
}

impl Spread {
    /// `leaders` tells for each partition, in the order of `partitions`, the number of its leader: 0, 1, … Connections take turns over partitions,
    /// so that a broker gets as many as it leads; with `every_leader` the first of them go to one leader each.
    pub fn new(partitions: &[i32], leaders: &[usize], connections: usize, every_leader: bool) -> Spread {
        let count = leaders.iter().max().map_or(0, |last| last + 1);
        let mut led = vec![Vec::new(); count];
        partitions.iter().zip(leaders).for_each(|(index, leader)| led[*leader].push(*index));
        let mut siblings = vec![0; count];
        let seat = |connection: usize| {
            let leader = match every_leader && connection < count {
                true => connection,
                false => leaders[connection % leaders.len()],
            };
            siblings[leader] += 1;
            Seat { leader, number: siblings[leader] - 1 }
        };
        let seats = (0..connections).map(seat).collect();
        Spread { led, seats, siblings }
    }

    /// The leader that a connection goes to, by number.
    pub fn leader(&self, connection: usize) -> usize {
        self.seats[connection].leader
    }

    /// The partitions that go into one request each, of those of a leader. What does not fill a set is left out.
    pub fn chunks(&self, leader: usize, partitions_per_request: usize) -> impl Iterator<Item = &[i32]> {
        self.led[leader].chunks_exact(partitions_per_request)
    }

    /// Which of its leader's sets (so many) a connection sends to in turn. With more sets than connections each has several, with fewer some share.
    pub fn sets(&self, connection: usize, count: usize) -> Vec<usize> {
        let Seat { leader, number } = self.seats[connection];
        let first = if count == 0 { 0 } else { number % count };
        (first..count).step_by(self.siblings[leader]).collect()
    }

    /// The partitions that a connection reads. Each is read by one connection, or if `shared`, those that would have none read one
    /// that another reads as well.
    pub fn parts(&self, connection: usize, shared: bool) -> Vec<i32> {
        let Seat { leader, number } = self.seats[connection];
        let led = &self.led[leader];
        let first = if shared { number % led.len() } else { number };
        led.iter().skip(first).step_by(self.siblings[leader]).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn spread(connections: usize, count: i32, leaders: usize) -> Spread {
        let partitions: Vec<i32> = (0..count).collect();
        let leaders: Vec<usize> = partitions.iter().map(|index| *index as usize % leaders).collect();
        Spread::new(&partitions, &leaders, connections, false)
    }

    /// The partitions of a connection's requests.
    fn sets(spread: &Spread, connection: usize, partitions_per_request: usize) -> Vec<Vec<i32>> {
        let all: Vec<&[i32]> = spread.chunks(spread.leader(connection), partitions_per_request).collect();
        spread.sets(connection, all.len()).into_iter().map(|at| all[at].to_vec()).collect()
    }

    #[test]
    fn every_partition_has_a_connection_and_every_connection_a_partition() {
        for (connections, count, leaders) in
            [(1, 1, 1), (4, 4, 1), (4, 4, 2), (64, 4, 2), (64, 1000, 2), (3, 10, 1), (5, 7, 3)]
        {
            let spread = spread(connections, count, leaders);
            let written: Vec<Vec<i32>> = (0..connections).map(|c| sets(&spread, c, 1).concat()).collect();
            let read: Vec<Vec<i32>> = (0..connections).map(|c| spread.parts(c, true)).collect();
            for (connection, of) in written.iter().chain(&read).enumerate() {
                assert!(!of.is_empty(), "{connections} {count} {leaders}");
                let leader = spread.leader(connection % connections);
                assert!(of.iter().all(|index| *index as usize % leaders == leader), "a connection leads to one broker");
            }
            for all in [written, read] {
                assert_eq!(all.into_iter().flatten().collect::<BTreeSet<_>>(), (0..count).collect());
            }
            let once: Vec<i32> = (0..connections).flat_map(|c| spread.parts(c, false)).collect();
            assert_eq!(once.len(), count as usize, "each partition is read by one");
        }
    }

    #[test]
    fn no_leader_is_left_out_if_all_are_wanted() {
        let spread = Spread::new(&[0, 1, 2, 3], &[0, 0, 0, 1], 2, true);
        assert_eq!((spread.parts(0, false), spread.parts(1, false)), (vec![0, 1, 2], vec![3]));
    }

    #[test]
    fn requests_hold_as_many_partitions_as_wanted() {
        let spread = spread(4, 1000, 1);
        for connection in 0..4 {
            let sets = sets(&spread, connection, 50);
            assert!(sets.len() == 5 && sets.iter().all(|set| set.len() == 50));
        }
    }
}
