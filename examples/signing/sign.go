// Sign a request to Sluice: RFC 9421 with HMAC-SHA256. Standard library only.
//
//	SLUICE_SIGNING_SECRET=sk-sign-... go run sign.go KEY_ID URL BODY_FILE   sends a POST, prints the answer
//	go run sign.go --vectors vectors.json                                   checks itself
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Request is what is signed. A nil Body is none; Created 0 is now; an empty Nonce is a new one.
type Request struct {
	KeyID    string  `json:"key_id"`
	Secret   string  `json:"secret"`
	Method   string  `json:"method"`
	URL      string  `json:"url"`
	Body     *string `json:"body"`
	Created  int64   `json:"created"`
	Lifetime int64   `json:"lifetime"`
	Nonce    string  `json:"nonce"`
}

// Sign gives the headers to send with the request.
func Sign(r Request) (map[string]string, error) {
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, err
	}
	authority := strings.ToLower(u.Host)
	own := map[string]string{"https": ":443", "http": ":80"}[u.Scheme]
	authority = strings.TrimSuffix(authority, own)
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	if r.Created == 0 {
		r.Created = time.Now().Unix()
	}
	if r.Lifetime == 0 {
		r.Lifetime = 60
	}
	if r.Nonce == "" {
		chance := make([]byte, 16)
		if _, err := rand.Read(chance); err != nil {
			return nil, err
		}
		r.Nonce = base64.RawURLEncoding.EncodeToString(chance)
	}
	covered := [][2]string{{"@method", r.Method}, {"@authority", authority}, {"@path", path}, {"@query", "?" + u.RawQuery}}
	headers := map[string]string{}
	if r.Body != nil {
		sum := sha256.Sum256([]byte(*r.Body))
		headers["content-digest"] = "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
		covered = append(covered, [2]string{"content-digest", headers["content-digest"]})
	}
	var names []string
	var base strings.Builder
	for _, one := range covered {
		names = append(names, `"`+one[0]+`"`)
		fmt.Fprintf(&base, "\"%s\": %s\n", one[0], one[1])
	}
	parameters := fmt.Sprintf(`(%s);created=%d;expires=%d;nonce="%s";keyid="%s";alg="hmac-sha256"`,
		strings.Join(names, " "), r.Created, r.Created+r.Lifetime, r.Nonce, r.KeyID)
	base.WriteString(`"@signature-params": ` + parameters)
	// The secret's own characters are the key: nothing is decoded.
	tag := hmac.New(sha256.New, []byte(r.Secret))
	tag.Write([]byte(base.String()))
	headers["signature-input"] = "sluice=" + parameters
	headers["signature"] = "sluice=:" + base64.StdEncoding.EncodeToString(tag.Sum(nil)) + ":"
	return headers, nil
}

func check(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var vectors []struct {
		Name string `json:"name"`
		Request
		Headers map[string]string `json:"headers"`
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		return err
	}
	for _, vector := range vectors {
		made, err := Sign(vector.Request)
		if err != nil {
			return err
		}
		if fmt.Sprint(made) != fmt.Sprint(vector.Headers) {
			return fmt.Errorf("%s: %v", vector.Name, made)
		}
	}
	fmt.Println("all vectors agree")
	return nil
}

func send(keyID, target, file string) error {
	bytesOf, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	body := string(bytesOf)
	headers, err := Sign(Request{KeyID: keyID, Secret: os.Getenv("SLUICE_SIGNING_SECRET"), Method: "POST", URL: target, Body: &body})
	if err != nil {
		return err
	}
	request, err := http.NewRequest("POST", target, bytes.NewReader(bytesOf))
	if err != nil {
		return err
	}
	request.Header.Set("content-type", "application/json")
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}

func main() {
	var err error
	if os.Args[1] == "--vectors" {
		err = check(os.Args[2])
	} else {
		err = send(os.Args[1], os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
