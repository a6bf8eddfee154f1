//! What every engine must do, as tests, and an engine that is slow on purpose.
