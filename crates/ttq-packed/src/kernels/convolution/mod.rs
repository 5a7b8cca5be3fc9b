//! stub for a first build
