//! An instance metadata service that says which instance it is, and nothing else.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// Serves for as long as this process runs, on a thread: no test's runtime lives that long. Returns its endpoint.
pub fn serve(instance: &'static str) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let _ = answer(connection, instance); // whoever went away needs none
        }
    });
    Ok(endpoint)
}

/// Version 2: a token is given out by PUT; who has one may ask.
fn answer(mut connection: TcpStream, instance: &str) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let length = connection.read(&mut request)?;
    let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
    let (status, body) = match request.split(' ').take(2).collect::<Vec<_>>().as_slice() {
        ["put", "/latest/api/token"] => ("200 OK", "token"),
        ["get", "/latest/meta-data/instance-id"] if request.contains("x-aws-ec2-metadata-token: token") => {
            ("200 OK", instance)
        }
        _ => ("404 Not Found", ""),
    };
    let length = body.len();
    let head = "x-aws-ec2-metadata-token-ttl-seconds: 60\r\nconnection: close\r\ncontent-length:";
    connection.write_all(format!("HTTP/1.1 {status}\r\n{head} {length}\r\n\r\n{body}").as_bytes())
}
