//! nginx as a plain reverse proxy, configured to be as cheap as it honestly can be.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Kind, Site, Target, free_address};
use crate::proc;
use crate::process::Process;

pub(super) const KIND: Kind = Kind {
    name: "nginx",
    about: "Plain reverse proxy: worker_processes auto, HTTP/1.1 keep-alive to the upstream (256 per worker), \
            access_log off, no limits on requests per connection; streams through a location with \
            proxy_buffering off. No key check, no metrics, no log.",
    proxy: true,
    start,
    version,
};

fn version(site: &Site) -> Result<String> {
    let output = Command::new(&site.nginx)
        .arg("-v")
        .output()
        .with_context(|| format!("no {} (on Debian: apt-get install nginx-light)", site.nginx.display()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    Ok(text.trim().trim_start_matches("nginx version: ").to_owned())
}

fn start(site: &Site) -> Result<Target> {
    let directory = site.fresh_directory(KIND.name)?;
    let address = free_address()?;
    let config = directory.join("nginx.conf");
    std::fs::write(&config, config_text(site, &directory, &address.to_string())?)?;
    let mut command = Command::new(&site.nginx);
    command.arg("-p").arg(&directory).arg("-c").arg(&config).arg("-e").arg(directory.join("error.log"));
    let process = Process::start(&mut command, &directory.join("output.log"))?;
    Ok(Target {
        stream_path: "/stream/v1/chat/completions".to_owned(),
        address,
        process: Some(process),
        name: KIND.name,
        ..Target::direct(site.upstream)
    })
}

fn config_text(site: &Site, directory: &Path, address: &str) -> Result<String> {
    let files = proc::open_files_limit()?.1;
    // Started by root, workers would change to a user who cannot enter the bench's directory.
    let user = if is_root() { "user root;" } else { "" };
    let upstream = site.upstream;
    let directory = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("    {what}_temp_path {directory}/{what};\n"))
        .concat();
    Ok(format!(
        "{user}
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log error;
worker_processes auto;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
    access_log off;
    keepalive_timeout 3600s;
    keepalive_requests 100000000;
{temporary}
    upstream backend {{
        server {upstream};
        keepalive 256;
        keepalive_requests 100000000;
        keepalive_timeout 3600s;
    }}
    server {{
        listen {address} backlog=4096;
        proxy_http_version 1.1;
        proxy_set_header Connection \"\";
        proxy_set_header Host $host;
        location / {{ proxy_pass http://backend; }}
        location /stream/ {{ proxy_pass http://backend/; proxy_buffering off; }}
    }}
}}
"
    ))
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}
