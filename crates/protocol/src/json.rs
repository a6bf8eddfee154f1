//! The JSON encoding: one object a line.
