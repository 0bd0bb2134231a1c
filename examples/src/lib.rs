//! What the examples share: nothing but this note; each example stands alone.
