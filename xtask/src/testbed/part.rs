//! One file or folder of the testbed, made whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// A file or folder, with the text that says what it is made of.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    recipe: String,
}

impl Part {
    /// The part `name` of the folder `dir`.
    pub(crate) fn new(dir: &Path, name: &str, recipe: String) -> Self {
        Self {
            path: dir.join(name),
            recipe,
        }
    }

    fn stamp(&self) -> PathBuf {
        self.path.with_added_extension("stamp")
    }

    /// Whether the part is there and was made by this recipe.
    pub(crate) fn is_current(&self) -> bool {
        self.path.exists() && fs::read_to_string(self.stamp()).is_ok_and(|text| text == self.recipe)
    }

    /// Has the part made anew next time.
    pub(crate) fn forget(&self) -> Result<()> {
        remove(&self.stamp())
    }

    /// Makes the part unless it is current: `build` fills a temporary path, which is then renamed.
    pub(crate) fn make(&self, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        let temporary = self.path.with_added_extension("new");
        remove(&temporary)?;
        eprintln!("fetching {}", self.path.display());
        build(&temporary).with_context(|| format!("cannot make {}", self.path.display()))?;
        remove(&self.stamp())?;
        remove(&self.path)?;
        fs::rename(&temporary, &self.path).with_context(|| format!("cannot rename {}", temporary.display()))?;
        fs::write(self.stamp(), &self.recipe).with_context(|| format!("cannot write {}", self.stamp().display()))
    }
}

/// Removes a file or a whole folder, if there is one.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_made_once_and_again_when_its_recipe_changes() {
        let dir = std::env::temp_dir().join(format!("xtask-part-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let made = |recipe: &str, text: &str| {
            let part = Part::new(&dir, "thing", recipe.to_owned());
            part.make(|place| Ok(fs::write(place, text)?)).unwrap();
            fs::read_to_string(dir.join("thing")).unwrap()
        };
        assert_eq!(made("one", "first"), "first");
        assert_eq!(made("one", "not looked at"), "first");
        assert_eq!(made("two", "second"), "second");

        let broken = Part::new(&dir, "thing", "three".to_owned());
        assert!(broken.make(|_| anyhow::bail!("no mirror")).is_err());
        assert_eq!(
            fs::read_to_string(dir.join("thing")).unwrap(),
            "second",
            "a failure leaves the old part"
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
