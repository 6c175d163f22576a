"""Certificates made by openssl: an authority, a server's, clients', and a list of those taken back."""

import subprocess


def openssl(folder, *arguments):
    made = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, timeout=30)
    assert made.returncode == 0, made.stderr
    return made.stdout


class Authority:
    def __init__(self, folder, name="ca"):
        self.folder, self.name = folder, name
        folder.mkdir(parents=True, exist_ok=True)
        openssl(
            folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
        (folder / f"{name}.index").write_text("")
        (folder / f"{name}.number").write_text("01")
        (folder / f"{name}.cnf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={name}.index\ncertificate={name}.pem\nprivate_key={name}.key\n"
            f"default_md=sha256\ndefault_crl_days=2\ncrlnumber={name}.number\ncrl_extensions=x\n"
            "[x]\nauthorityKeyIdentifier=keyid:always\n"
        )

    @property
    def path(self):
        return str(self.folder / f"{self.name}.pem")

    def issue(self, name, alternative, usage="clientAuth"):
        """A certificate and its key, as paths."""
        (self.folder / f"{name}.ext").write_text(
            f"subjectAltName={alternative}\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n"
        )
        openssl(
            self.folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
        )  # fmt: skip
        openssl(
            self.folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key",
            "-CAcreateserial", "-days", "1", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )  # fmt: skip
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    def fingerprint(self, name):
        text = openssl(self.folder, "x509", "-in", f"{name}.pem", "-noout", "-fingerprint", "-sha256")
        return text.split("=", 1)[1].strip()

    def revoked(self, *names):
        """A list of certificates taken back, as a path."""
        for name in names:
            openssl(self.folder, "ca", "-config", f"{self.name}.cnf", "-revoke", f"{name}.pem")
        openssl(self.folder, "ca", "-config", f"{self.name}.cnf", "-gencrl", "-out", f"{self.name}.crl")
        return str(self.folder / f"{self.name}.crl")
