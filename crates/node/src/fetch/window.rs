//! How many blocks a fetch wants at once.

/// Wants at first.
const START: usize = 32;
/// The most wants: enough to keep a quick peer with small blocks busy.
const MAX: usize = 1024;
/// However large the blocks are, this many may be wanted.
const MIN: usize = 8;
/// The bytes that all wanted blocks may have together, judged by the blocks that came last.
const BYTES_MAX: f64 = 32.0 * 1024.0 * 1024.0;
/// What a block is thought to have before one came.
const BLOCK_BYTES_GUESS: f64 = 256.0 * 1024.0;

/// The number of wants, which grows as blocks come and shrinks as they get larger.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    block_bytes: f64,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { size: START, block_bytes: BLOCK_BYTES_GUESS }
    }

    /// A block came.
    pub(super) fn delivered(&mut self, bytes: usize) {
        self.size = (self.size + 1).min(MAX);
        let bytes = bytes as f64;
        // A large block counts at once, small ones little by little: memory comes before speed.
        let weight = if bytes > self.block_bytes { 4.0 } else { 32.0 };
        self.block_bytes += (bytes - self.block_bytes) / weight;
    }

    /// How many blocks to want now, beside those that are wanted. Zero until it is worth a message.
    pub(super) fn room(&self, wanted: usize) -> usize {
        let fitting = (BYTES_MAX / self.block_bytes.max(1.0)) as usize;
        let size = self.size.min(fitting).max(MIN);
        let room = size.saturating_sub(wanted);
        if room * 4 >= size { room } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_blocks_open_the_window_and_large_ones_close_it() {
        let mut window = Window::new();
        for _ in 0..2000 {
            window.delivered(4096);
        }
        assert_eq!(window.room(0), MAX);
        for _ in 0..100 {
            window.delivered(1024 * 1024);
        }
        assert!((30..=40).contains(&window.room(0)), "{}", window.room(0));
        for _ in 0..100 {
            window.delivered(2 * 1024 * 1024);
        }
        assert!((15..=20).contains(&window.room(0)), "{}", window.room(0));
    }

    #[test]
    fn it_is_filled_up_in_steps_worth_a_message() {
        let window = Window::new();
        assert_eq!(window.room(START), 0);
        assert_eq!(window.room(START - 1), 0);
        assert_eq!(window.room(START - 8), 8);
    }
}
