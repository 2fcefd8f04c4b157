//! The table that is printed.

use std::fmt;

use crate::scenarios::{Better, Figure};

#[derive(Debug)]
struct Row {
    scenario: String,
    name: &'static str,
    better: Better,
    /// The values of each server.
    values: Vec<Vec<f64>>,
}

/// Values of all rounds, by scenario and figure.
#[derive(Debug)]
pub(crate) struct Table {
    servers: Vec<String>,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(servers: Vec<String>) -> Self {
        Self { servers, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, scenario: &str, server: usize, Figure { name, better, value }: Figure) {
        let place =
            self.rows.iter().position(|row| row.scenario == scenario && row.name == name).unwrap_or_else(|| {
                let values = vec![Vec::new(); self.servers.len()];
                self.rows.push(Row { scenario: scenario.to_owned(), name, better, values });
                self.rows.len() - 1
            });
        self.rows[place].values[server].push(value);
    }

    /// All values of a figure.
    pub(crate) fn values(&self, name: &'static str) -> impl Iterator<Item = f64> {
        self.rows.iter().filter(move |row| row.name == name).flat_map(|row| row.values.iter().flatten().copied())
    }
}

/// The median, the smallest and the largest.
fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let (first, last) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    Some((median, first, last))
}

/// Three significant digits are more than a noisy machine gives.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 99.5 => format!("{value:.0}"),
        size if size >= 9.95 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.servers.split_first() else { return Ok(()) };
        write!(f, "| scenario | figure | better | {first} |")?;
        others.iter().try_for_each(|server| write!(f, " {server} | {server} / {first} |"))?;
        write!(f, "\n| --- | --- | --- | --- |{}", " --- | --- |".repeat(others.len()))?;
        for row in &self.rows {
            let better = match row.better {
                Better::More => "more",
                Better::Less => "less",
                Better::Neither => "",
            };
            write!(f, "\n| {} | {} | {better} |", row.scenario, row.name)?;
            let base = spread(&row.values[0]);
            for (server, values) in row.values.iter().enumerate() {
                match spread(values) {
                    None => write!(f, " failed |")?,
                    Some((median, _, _)) if values.len() == 1 => write!(f, " {} |", short(median))?,
                    Some((median, low, high)) => {
                        write!(f, " {} ({}–{}) |", short(median), short(low), short(high))?;
                    }
                }
                if server > 0 {
                    match (spread(values), base) {
                        (Some((median, ..)), Some((base, ..))) if base != 0.0 => {
                            write!(f, " **{:.2}** |", median / base)?
                        }
                        _ => write!(f, " |")?,
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_their_spread_and_ratios() {
        let mut table = Table::new(vec!["floor".to_owned(), "chat".to_owned()]);
        for (server, values) in [[100.0, 400.0, 200.0], [30.0, 1.5, 5.0]].into_iter().enumerate() {
            for value in values {
                table.add("join", server, Figure { name: "joins/s", better: Better::More, value });
            }
        }
        let lines = table.to_string();
        let row = lines.lines().last().unwrap();
        assert_eq!(row, "| join | joins/s | more | 200 (100–400) | 5.00 (1.50–30.0) | **0.03** |");
    }
}
