//! The source text of the JavaScript client.

macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        /// The JavaScript client: ES modules, each with the path at which the others import it, and its text. Pages import the first,
        /// `presence.js`. Its first comment explains how to use it.
        ///
        /// Serve all of them from your own host, as `text/javascript`:
        ///
        /// ```
        /// use actix_web::{App, HttpResponse, web};
        ///
        /// fn client(app: &mut web::ServiceConfig) {
        ///     for &(path, text) in presence::CLIENT_JS {
        ///         let module = move || async move { HttpResponse::Ok().content_type("text/javascript").body(text) };
        ///         app.route(&format!("/{path}"), web::get().to(module));
        ///     }
        /// }
        /// # let _ = App::new().configure(client);
        /// ```
        pub const CLIENT_JS: &[(&str, &str)] = &[$(($name, include_str!(concat!("../client/", $name)))),*];
    };
}

modules! {
    "presence.js",
    "presence/address.js",
    "presence/browser.js",
    "presence/connection.js",
    "presence/error.js",
    "presence/events.js",
    "presence/frames.js",
    "presence/frozen.js",
    "presence/heart.js",
    "presence/page.js",
    "presence/parts.js",
    "presence/replica.js",
    "presence/retry.js",
    "presence/room.js",
    "presence/roster.js",
    "presence/sorter.js",
    "presence/token.js",
    "presence/unclaimed.js",
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::CLIENT_JS;

    /// The path of the module that a line of a module imports.
    fn imported(by: &str, line: &str) -> Option<String> {
        let (_, from) = line.strip_prefix("import ")?.split_once(" from '")?;
        let relative = from.strip_suffix("';")?.strip_prefix("./")?;
        let folder = Path::new(by).parent()?;
        Some(folder.join(relative).to_str()?.to_owned())
    }

    #[test]
    fn exactly_the_imported_modules_are_served() {
        let served: BTreeSet<_> = CLIENT_JS.iter().map(|(path, _)| (*path).to_owned()).collect();
        let mut wanted = BTreeSet::from(["presence.js".to_owned()]);
        for (path, text) in CLIENT_JS {
            let imports: Vec<_> = text.lines().filter(|line| line.starts_with("import ")).collect();
            let known = imports.iter().filter_map(|line| imported(path, line));
            wanted.extend(known.clone());
            assert_eq!(known.count(), imports.len(), "an import of {path} is not read by this test");
        }
        assert_eq!(served, wanted);
    }
}
