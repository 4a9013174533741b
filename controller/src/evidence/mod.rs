//! Evidence: one file per kind, each a pure decision about what to do next. The Evidence controller carries it out.

pub mod ebs_snapshots;
