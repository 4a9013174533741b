//! How the demo looks: headings, short lines, real commands with their real output.

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::ensure;
use firebreak_tests::tools;
use tokio::process::Command;

/// Wider lines are wrapped.
const WIDTH: usize = 120;

/// Prints, and runs what it prints.
pub struct Narrator {
    /// Where commands run.
    pub folder: PathBuf,
    /// For whom.
    pub kubeconfig: PathBuf,
    color: bool,
    chapter: usize,
    started: Instant,
    /// Whether the last line printed was empty.
    blank: Cell<bool>,
}

impl Narrator {
    pub fn new(folder: PathBuf, kubeconfig: PathBuf, started: Instant) -> Self {
        Self { folder, kubeconfig, color: std::io::stdout().is_terminal(), chapter: 0, started, blank: Cell::new(false) }
    }

    /// A heading, with the time since the beginning.
    pub fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        let heading = format!("{}. {title}", self.chapter);
        let time = format!("{} s", self.started.elapsed().as_secs());
        let line = "─".repeat(WIDTH.saturating_sub(heading.chars().count() + time.len() + 4));
        println!("{}{} {line} {time}\n", if self.blank.get() { "" } else { "\n" }, self.bold(&heading));
    }

    /// A paragraph.
    pub fn say(&self, text: &str) {
        wrapped(text, WIDTH, "").iter().for_each(|line| println!("{line}"));
        self.gap();
    }

    /// Something that did happen, and was checked.
    pub fn seen(&self, text: &str) {
        let mark = if self.color { "\x1b[32m✓\x1b[0m" } else { "✓" };
        for (index, line) in wrapped(text, WIDTH - 2, "").into_iter().enumerate() {
            println!("{} {line}", if index == 0 { mark } else { " " });
        }
        self.blank.set(false);
    }

    /// An empty line.
    pub fn gap(&self) {
        println!();
        self.blank.set(true);
    }

    /// Shows a command, runs it in a shell as it is shown, and shows what it printed.
    pub async fn run(&self, command: &str) -> anyhow::Result<String> {
        self.show(command);
        let output = self.quietly(command).await?;
        for line in output.trim_end().lines() {
            wrapped(line, WIDTH - 2, "    ").iter().for_each(|part| println!("  {part}"));
        }
        self.gap();
        Ok(output)
    }

    fn show(&self, command: &str) {
        for (index, line) in command.lines().enumerate() {
            println!("{}", self.bold(&format!("{} {line}", if index == 0 { "$" } else { " " })));
        }
    }

    /// Runs a command that is not shown.
    pub async fn quietly(&self, command: &str) -> anyhow::Result<String> {
        let path = format!("{}:{}", tools::control_plane().display(), std::env::var("PATH").unwrap_or_default());
        let run = Command::new("sh")
            .args(["-c", command])
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.folder)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        let errors = String::from_utf8_lossy(&run.stderr);
        ensure!(run.status.success(), "`{command}` failed: {}", errors.trim());
        let output = if run.stdout.is_empty() { errors } else { String::from_utf8_lossy(&run.stdout) };
        Ok(output.into_owned())
    }

    fn bold(&self, text: &str) -> String {
        if self.color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Breaks at spaces; continued lines begin with `indent`.
fn wrapped(text: &str, width: usize, indent: &str) -> Vec<String> {
    let mut lines = vec![];
    let mut rest = text.to_owned();
    while rest.chars().count() > width {
        let fits: String = rest.chars().take(width).collect();
        let before = rest.len() - rest.trim_start().len();
        let cut = fits.rfind(' ').filter(|at| *at > before).unwrap_or(fits.len());
        lines.push(rest[..cut].trim_end().to_owned());
        rest = format!("{indent}{}", rest[cut..].trim_start());
    }
    lines.push(rest);
    lines
}

/// Rows of cells, each of one or more lines, under headings.
pub fn table(headings: &[&str], rows: &[Vec<Vec<String>>]) {
    let width = |column: usize| {
        let cells = rows.iter().flat_map(|row| row[column].iter().map(|line| line.chars().count()));
        cells.chain([headings[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let print = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("  {}", padded.collect::<Vec<_>>().join("   ").trim_end());
    };
    print(headings.to_vec());
    print(widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().iter().map(String::as_str).collect());
    for row in rows {
        for line in 0..row.iter().map(Vec::len).max().unwrap_or_default() {
            print(row.iter().map(|cell| cell.get(line).map_or("", String::as_str)).collect());
        }
    }
}
