//! The table of `scale`.

use std::fmt;

use crate::table::short;

/// A column for each number of sockets, and a row for each figure.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    columns: Vec<String>,
    rows: Vec<(&'static str, Vec<Option<String>>)>,
}

impl Sheet {
    /// Begins a column, into which all figures go from now on.
    pub(super) fn begin(&mut self, column: String) {
        self.columns.push(column);
    }

    pub(super) fn add(&mut self, name: &'static str, value: f64) {
        self.write(name, short(value));
    }

    pub(super) fn write(&mut self, name: &'static str, text: String) {
        let place = self.rows.iter().position(|row| row.0 == name).unwrap_or_else(|| {
            self.rows.push((name, Vec::new()));
            self.rows.len() - 1
        });
        let values = &mut self.rows[place].1;
        values.resize(self.columns.len(), None);
        if let Some(value) = values.last_mut() {
            *value = Some(text);
        }
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| figure | {} |\n| --- |{}", self.columns.join(" | "), " --- |".repeat(self.columns.len()))?;
        for (name, values) in &self.rows {
            write!(f, "\n| {name} |")?;
            for place in 0..self.columns.len() {
                let value = values.get(place).and_then(Option::as_deref);
                write!(f, " {}{}|", value.unwrap_or_default(), if value.is_some() { " " } else { "" })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_without_a_value_in_a_column_is_left_empty() {
        let mut sheet = Sheet::default();
        sheet.begin("half".to_owned());
        sheet.add("sockets", 10.0);
        sheet.begin("all".to_owned());
        sheet.add("sockets", 20.0);
        sheet.add("stop, s", 3.0);
        let rows = "| figure | half | all |\n| --- | --- | --- |\n| sockets | 10.0 | 20.0 |\n| stop, s | | 3.00 |";
        assert_eq!(sheet.to_string(), rows);
    }
}
