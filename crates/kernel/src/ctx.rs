//! What is known about a request at the door, and never changes afterwards.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{Caller, Journal, Moment, Note, Priority, RequestId};

/// The context of one request: who, how urgent, until when. Cheap to clone, first parameter everywhere.
///
/// Its journal is write-only on the way; the door takes it out once, when the request ends.
#[derive(Debug, Clone)]
pub struct Ctx(Arc<Inner>);

/// What the door found out; turned into a [`Ctx`] once.
#[derive(Debug)]
pub struct Facts {
    /// The request's id.
    pub id: RequestId,
    /// Who calls.
    pub caller: Caller,
    /// How urgent it is.
    pub priority: Priority,
    /// When it came.
    pub started: Moment,
    /// When all of it had come: who sends slowly does not wait meanwhile.
    pub asked: Moment,
    /// The deadline its client set, if any.
    pub deadline: Option<Moment>,
    /// Whether its client wants to know why it was placed as it was, and may.
    pub explain: bool,
    /// What its client wants it counted under.
    pub tag: Option<Arc<str>>,
    /// Whether it is held to budgets and balances.
    pub budgeted: bool,
}

#[derive(Debug)]
struct Inner {
    facts: Facts,
    journal: Mutex<Journal>,
}

impl Ctx {
    /// Seals what the door found out.
    pub fn new(facts: Facts) -> Self {
        Self(Arc::new(Inner { facts, journal: Mutex::default() }))
    }

    /// What the door found out.
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// Writes a fact into the journal.
    pub fn note(&self, note: Note) {
        // A poisoned journal still holds whole notes: each is folded in by one plain assignment.
        self.0.journal.lock().unwrap_or_else(PoisonError::into_inner).write(note);
    }

    /// Takes the journal out, leaving an empty one. For the door, when the request ends.
    pub fn close(&self) -> Journal {
        std::mem::take(&mut *self.0.journal.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the journal without taking it. For the door, when it writes the response head.
    pub fn glance<T>(&self, read: impl FnOnce(&Journal) -> T) -> T {
        read(&self.0.journal.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
