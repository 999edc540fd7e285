//! Tests of truncation.
