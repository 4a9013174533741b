//! `make bench`: how fast the attacker is cut off, next to a script that does one call after the other; and what holding
//! many instances costs. Prints Markdown.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scale;
mod speed;

use std::path::PathBuf;
use std::time::Duration;

use firebreak_tests::plane::Plane;

/// The controller as its users run it, beside this program.
fn controller() -> PathBuf {
    let binary = std::env::current_exe().unwrap().with_file_name("firebreak-controller");
    assert!(binary.exists(), "{} is missing: run `make bench`, which builds it", binary.display());
    binary
}

/// `bench speed` and `bench scale` do one half.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let half = std::env::args().nth(1);
    let wanted = |name: &str| half.as_deref().is_none_or(|half| half == name);
    let plane = Plane::start().await?;
    if wanted("speed") {
        speed::print(&speed::measure(&plane).await?);
    }
    if wanted("scale") {
        let mut rows = Vec::new();
        for count in [1, 10, 100] {
            eprintln!("bench: {count} contained instances");
            rows.push(scale::measure(&plane, count).await?);
        }
        scale::print(&rows);
    }
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    println!("| {} |", headings.join(" | "));
    println!("|{}", " --- |".repeat(headings.len()));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
    println!();
}
