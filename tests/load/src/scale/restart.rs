//! A node stops and starts again while the others have their sockets; at the end all nodes stop.

use std::time::{Duration, Instant};

use super::{Run, SETTLE, sheet::Sheet};

/// How long a node may take to end.
const STOP: Duration = Duration::from_secs(60);

impl Run<'_> {
    /// Stops the last node, starts it again under its name, and lets new clients join the rooms of those that it had.
    pub(super) fn restart(&mut self, sheet: &mut Sheet) -> Result<(), String> {
        let mut node = self.nodes.pop().ok_or("there is no node")?;
        let address = node.address;
        let dismissed: f64 = self.ask_all(&format!("dismiss {address}"))?.into_iter().flatten().sum();
        let before = self.received()?;
        let began = Instant::now();
        node.terminate()?;
        // The clients measure from here, although their answers are read later.
        let settle = format!("settle {SETTLE}");
        self.small.ask(|_| settle.clone())?;
        self.large.ask(|_| settle.clone())?;
        node.wait(STOP)?;
        sheet.write("sockets of a node that stops", dismissed.to_string());
        sheet.add("its stop, s", began.elapsed().as_secs_f64());
        let slowest = |answers: Vec<Vec<f64>>| answers.into_iter().flatten().fold(0.0, f64::max);
        let (small, large) = (slowest(self.small.answers()?), slowest(self.large.answers()?));
        if !self.nodes.is_empty() {
            let after = self.received()?;
            sheet.add("from its SIGTERM until its clients have left the rooms of 10, s", small);
            sheet.add("from its SIGTERM until its clients have left the large room, s", large);
            sheet.add("texts to another member of the large room meanwhile, mean", after.0 - before.0);
            sheet.add("KB to another member of the large room meanwhile, mean", (after.1 - before.1) / 1e3);
        }
        let codes = self.closes(dismissed)?;
        sheet.write("how its sockets were closed", codes);

        let began = Instant::now();
        let node = self.node(address.port())?;
        sheet.add("its start, ms", began.elapsed().as_secs_f64() * 1e3);
        self.nodes.push(node);
        let began = Instant::now();
        let answers =
            self.ask_all(&format!("return {} {address}", self.args.at_once.div_ceil(self.small.len() + 1)))?;
        self.joined("returning", answers, began, sheet);
        self.settle().map(drop)
    }

    /// The texts and bytes that a member of the large room has received on average.
    fn received(&mut self) -> Result<(f64, f64), String> {
        self.large.ask(|_| "received".to_owned())?;
        match self.large.answers()?.concat()[..] {
            [members, texts, bytes] => Ok((texts / members.max(1.0), bytes / members.max(1.0))),
            _ => Err("the members of the large room are not known".to_owned()),
        }
    }

    /// Which Close the dismissed clients have received.
    fn closes(&mut self, dismissed: f64) -> Result<String, String> {
        let mut codes = std::collections::BTreeMap::<u16, f64>::new();
        for answer in self.ask_all(&format!("closes {}", STOP.as_secs()))? {
            for pair in answer.chunks_exact(2) {
                *codes.entry(pair[0] as u16).or_default() += pair[1];
            }
        }
        let sum: f64 = codes.values().sum();
        if sum != dismissed {
            return Err(format!("{dismissed} sockets were to be closed, and {sum} were"));
        }
        let text = |(code, count): (&u16, &f64)| match code {
            0 => format!("{count} without a Close"),
            code => format!("{count} with {code}"),
        };
        Ok(codes.iter().map(text).collect::<Vec<_>>().join(", "))
    }

    /// Stops all nodes at once.
    pub(super) fn stop(&mut self, sheet: &mut Sheet) -> Result<(), String> {
        for address in self.nodes.iter().map(|node| node.address).collect::<Vec<_>>() {
            self.ask_all(&format!("dismiss {address}"))?;
        }
        let began = Instant::now();
        self.nodes.iter().try_for_each(|node| node.terminate())?;
        self.nodes.iter_mut().try_for_each(|node| node.wait(STOP))?;
        sheet.add("stop of all nodes at once, s", began.elapsed().as_secs_f64());
        let codes = self.closes(self.sockets as f64)?;
        sheet.write("how all sockets were closed", codes);
        Ok(())
    }
}
