//! nginx with given server blocks: a proxy in front of Watchkeeper, a web server for checks, a TLS endpoint.

use std::{fs, path::Path};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::START;
use crate::{Cmd, Proc, Signal, free_port, temp_dir};

/// An nginx on loopback.
#[derive(Debug)]
pub struct Nginx {
    proc: Proc,
    dir: TempDir,
    port: u16,
}

impl Nginx {
    /// Starts with what stands inside `http { }`. `{port}` and `{dir}` in it become its port and its folder; `{dir}/www` exists.
    pub async fn start(http: &str) -> anyhow::Result<Self> {
        let (dir, port) = (temp_dir("nginx")?, free_port());
        fs::create_dir(dir.path().join("www"))?;
        write_config(dir.path(), port, http)?;
        let server = Cmd::new("nginx").args(["-e", "stderr", "-c"]).arg(dir.path().join("nginx.conf")).arg("-p").arg(dir.path());
        let mut proc = server.spawn()?;
        let connect = async || {
            TcpStream::connect(("127.0.0.1", port)).await?;
            Ok(())
        };
        proc.until_ready(START, connect).await?;
        Ok(Self { proc, dir, port })
    }

    /// Its address, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its folder; `www` in it is for pages, `access.log` is written there.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process, to signal it or to read its log.
    pub fn proc(&mut self) -> &mut Proc {
        &mut self.proc
    }

    /// Replaces the configuration and asks it to reload (SIGHUP). It goes on with the old one when the new one is wrong.
    pub fn reload(&self, http: &str) -> anyhow::Result<()> {
        write_config(self.dir.path(), self.port, http)?;
        self.proc.signal(Signal::HUP)
    }
}

/// The worker keeps root where there is root: Debian's own user could not write into the test's folder.
fn write_config(dir: &Path, port: u16, http: &str) -> anyhow::Result<()> {
    let here = dir.display().to_string();
    let http = http.replace("{port}", &port.to_string()).replace("{dir}", &here);
    let temp: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("    {name}_temp_path {here}/{name};\n")).concat();
    let config = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {here}/nginx.pid;\nerror_log stderr info;\nevents {{ }}\n\
         http {{\n    access_log {here}/access.log;\n    default_type text/html;\n{temp}{http}\n}}\n"
    );
    Ok(fs::write(dir.join("nginx.conf"), config)?)
}
