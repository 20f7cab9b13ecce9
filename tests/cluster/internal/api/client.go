// Package api is a small client of the Kubernetes API: JSON over HTTPS with a
// client certificate. It knows only what the cluster program needs.
package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"atomix.io/cluster/internal/certificates"
)

// userAgent lets the API server's records tell these requests from others.
const userAgent = "atomix-cluster"

// Client talks to one API server.
type Client struct {
	server string
	http   *http.Client
}

// StatusError is an answer of the API server other than success.
type StatusError struct {
	Code    int
	Request string
	Body    string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: status %d: %s", e.Request, e.Code, e.Body)
}

// IsNotFound says whether the API server answered that the object does not exist.
func IsNotFound(err error) bool { return hasCode(err, http.StatusNotFound) }

// IsConflict says whether the object exists already or was changed meanwhile.
func IsConflict(err error) bool { return hasCode(err, http.StatusConflict) }

func hasCode(err error, code int) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == code
}

// NewClient reads the certificates.
func NewClient(server string, authority, client certificates.Files) (*Client, error) {
	authorityText, err := os.ReadFile(authority.Certificate)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authorityText) {
		return nil, fmt.Errorf("no certificate in %s", authority.Certificate)
	}
	certificate, err := tls.LoadX509KeyPair(client.Certificate, client.Key)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}},
		TLSHandshakeTimeout: 5 * time.Second,
		ForceAttemptHTTP2:   true,
	}
	return &Client{server: server, http: &http.Client{Transport: transport}}, nil
}

// Get reads the object at the path into result, if result is not nil.
func (c *Client) Get(ctx context.Context, path string, result any) error {
	return c.do(ctx, http.MethodGet, path, "", nil, result)
}

// Create posts the object to the path of its collection.
func (c *Client) Create(ctx context.Context, path string, object any) error {
	return c.do(ctx, http.MethodPost, path, "application/json", object, nil)
}

// Merge changes the fields of the object at the path that are named in change.
func (c *Client) Merge(ctx context.Context, path string, change any) error {
	return c.do(ctx, http.MethodPatch, path, "application/merge-patch+json", change, nil)
}

// Delete removes the object at the path; one that is gone is no error.
func (c *Client) Delete(ctx context.Context, path string) error {
	err := c.do(ctx, http.MethodDelete, path, "", nil, nil)
	if IsNotFound(err) {
		return nil
	}
	return err
}

// Watch calls changed for every event of the collection until the server or the
// context ends the connection. What the event holds is not looked at.
func (c *Client) Watch(ctx context.Context, path string, changed func()) error {
	response, err := c.send(ctx, http.MethodGet, path+"?watch=1", "", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	events := json.NewDecoder(response.Body)
	for {
		var event struct {
			Type string `json:"type"`
		}
		if err := events.Decode(&event); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		changed()
	}
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body, result any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	response, err := c.send(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil || result == nil {
		return err
	}
	return json.Unmarshal(content, result)
}

func (c *Client) send(ctx context.Context, method, path, contentType string, body any) (*http.Response, error) {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", userAgent)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return nil, err
	}
	return nil, &StatusError{Code: response.StatusCode, Request: method + " " + path, Body: string(answer)}
}
