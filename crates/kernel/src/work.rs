//! Work that would keep a data-plane thread busy for too long: it is handed to threads that do nothing else.

/// One piece of work. How its result comes back is its own business.
pub type Job = Box<dyn FnOnce() + Send>;

/// Threads for work on the processor: reading large bodies, later tokenizing and embedding.
pub trait Workers: Send + Sync + 'static {
    /// Takes a job, to be done soon. Never waits.
    ///
    /// # Errors
    /// Gives the job back when too many wait already: whoever has it does it himself, which slows down whoever asks for
    /// too much.
    fn submit(&self, job: Job) -> Result<(), Job>;
}
