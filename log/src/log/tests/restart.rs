//! Tests of restart.
