//! Says when the content of one file has changed.
//!
//! Files are replaced in many ways: by rename, by truncating and writing, by swapping the symlink that
//! leads to their directory (Kubernetes). So nothing is concluded from *what* the system reports: any
//! news from the file's directory, and a clock for what no news comes of (network mounts, link targets
//! elsewhere), only cause a look, and only the content decides. Reloading is the listener's business.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use super::document::FILE_MAX;

// Bound: an editor's truncate and write lie closer together than this; a person does not notice it.
const SETTLE: Duration = Duration::from_millis(100);
// Bound: a file that never rests is read all the same, so that a busy writer cannot hide it.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// What is known of a watched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// How often its content has changed since the watch began. A file that comes back as it was has not.
    pub changes: u64,
    /// Why it cannot be read at the moment, told once.
    pub trouble: Option<String>,
}

/// A watch over one file. Dropping it ends its thread.
#[derive(Debug)]
pub struct Watch {
    // Held only to be dropped: the thread ends when nobody can wake it any more.
    _wake: SyncSender<()>,
    _watcher: Option<RecommendedWatcher>,
}

/// The content, as far as telling it from other content goes.
#[derive(Clone, PartialEq, Eq)]
enum Look {
    Content(blake3::Hash),
    Trouble(String),
}

/// What the thread knows.
struct Watching {
    path: PathBuf,
    content: Option<blake3::Hash>,
    sightings: watch::Sender<Sighting>,
}

// === impl Watch ===

impl Watch {
    /// Watches the file at `path`: its directory where the system can, and its content every `poll`.
    ///
    /// Start it before reading the file, and no change can fall between the two. The receiver is
    /// notified when the content differs, when the file becomes unreadable and when it is back.
    ///
    /// # Errors
    /// No thread can be started. A directory that cannot be watched is no error: the clock remains.
    pub fn start(path: &Path, poll: Duration) -> io::Result<(Watch, watch::Receiver<Sighting>)> {
        // Bound: one wake says all there is to say; more of them mean no more.
        let (wake, wakes) = sync_channel(1);
        let watcher = watch_directory(path, wake.clone()).ok();
        let (content, trouble) = match look(path) {
            Look::Content(hash) => (Some(hash), None),
            Look::Trouble(trouble) => (None, Some(trouble)),
        };
        let changes = 0;
        let (sightings, receiver) = watch::channel(Sighting { changes, trouble });
        let path = path.to_owned();
        let watching = Watching { path, content, sightings };
        thread::Builder::new().name("config-watch".to_owned()).spawn(move || watching.run(&wakes, poll.max(SETTLE)))?;
        let watch = Watch { _wake: wake, _watcher: watcher };
        Ok((watch, receiver))
    }
}

// === impl Watching ===

impl Watching {
    fn run(mut self, wakes: &Receiver<()>, poll: Duration) {
        while wakes.recv_timeout(poll) != Err(RecvTimeoutError::Disconnected) {
            let known = self.known();
            let found = self.settled(&known);
            if found != known {
                self.tell(found);
            }
            // The directory may be a busy one: many events in it, one look.
            thread::sleep(SETTLE);
        }
    }

    fn known(&self) -> Look {
        let trouble = self.sightings.borrow().trouble.clone();
        match (trouble, self.content) {
            (None, Some(hash)) => Look::Content(hash),
            (trouble, _) => Look::Trouble(trouble.unwrap_or_default()),
        }
    }

    /// Looks until two looks agree, or the one looked for is there already.
    fn settled(&self, known: &Look) -> Look {
        let began = Instant::now();
        let mut found = look(&self.path);
        while found != *known && began.elapsed() < SETTLE_MAX {
            thread::sleep(SETTLE);
            let again = look(&self.path);
            if again == found {
                break;
            }
            found = again;
        }
        found
    }

    fn tell(&mut self, found: Look) {
        let mut changes = self.sightings.borrow().changes;
        let trouble = match found {
            Look::Trouble(trouble) => Some(trouble),
            Look::Content(hash) => {
                changes += u64::from(self.content != Some(hash));
                self.content = Some(hash);
                None
            }
        };
        self.sightings.send_replace(Sighting { changes, trouble });
    }
}

fn watch_directory(path: &Path, wake: SyncSender<()>) -> notify::Result<RecommendedWatcher> {
    let on_event = move |event: notify::Result<Event>| {
        if event.as_ref().map_or(true, is_news) {
            // Full means that a look is due already.
            let _ = wake.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(on_event)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Reading a file is an event too, and must not lead to reading it again.
fn is_news(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn look(path: &Path) -> Look {
    hash(path).map_or_else(|error| Look::Trouble(format!("cannot be read: {error}")), Look::Content)
}

fn hash(path: &Path) -> io::Result<blake3::Hash> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    // Bound: one byte over is enough; what is refused need not be told apart further.
    let file = File::open(path)?;
    file.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(blake3::hash(&bytes))
}
