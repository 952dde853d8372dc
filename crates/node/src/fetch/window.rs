//! The number of blocks that a fetch requests at a time.

/// Initial number of wants.
const START: usize = 32;
/// Maximum number of wants: enough to keep a fast peer with small blocks busy.
const MAX: usize = 1024;
/// Minimum number of wants, however large the blocks are.
const MIN: usize = 8;
/// Bytes of all wanted blocks, estimated from the blocks that arrived last.
const BYTES_MAX: f64 = 32.0 * 1024.0 * 1024.0;
/// Assumed size of a block before the first one arrived.
const BLOCK_BYTES_GUESS: f64 = 256.0 * 1024.0;

/// The number of wants. It grows as blocks arrive, and shrinks as blocks get larger.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    block_bytes: f64,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { size: START, block_bytes: BLOCK_BYTES_GUESS }
    }

    /// A block arrived.
    pub(super) fn delivered(&mut self, bytes: usize) {
        self.size = (self.size + 1).min(MAX);
        let bytes = bytes as f64;
        // Large blocks change the estimate at once, small ones gradually: bounding memory comes before speed.
        let weight = if bytes > self.block_bytes { 4.0 } else { 32.0 };
        self.block_bytes += (bytes - self.block_bytes) / weight;
    }

    /// How many more blocks to request. Zero until it is worth a message.
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
    fn window_grows_with_small_blocks_and_shrinks_with_large_ones() {
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
    fn window_is_refilled_in_steps_of_a_quarter() {
        let window = Window::new();
        assert_eq!(window.room(START), 0);
        assert_eq!(window.room(START - 1), 0);
        assert_eq!(window.room(START - 8), 8);
    }
}
